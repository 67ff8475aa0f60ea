"""The pytest plugin: crash tests, golden histories and the network guard. pytest finds it by the entry point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from durably.testing.goldens import DIRECTORY, Golden, RecordMode
from durably.testing.network_guard import NetworkGuard
from durably.testing.plugin.crash_tests import (
    CrashMatrix,
    crash_dir,
    crash_matrix,
    pytest_generate_tests,
    pytest_pyfunc_call,
)
from durably.testing.plugin.deploy import DeployCheck, deploy_check
from durably.testing.plugin.options import add_options, crash_count
from durably.testing.plugin.summary import SessionSummary, file_name, keep_goldens

__all__ = [
    "CrashMatrix",
    "DeployCheck",
    "crash_dir",
    "crash_matrix",
    "deploy_check",
    "golden",
    "pytest_generate_tests",
    "pytest_pyfunc_call",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "crashtest(points='*', crashes=1, backend=None, mode='inproc', events=()): the test returns (agent, data) or a "
        "CrashTest, and becomes one test for each point at which it can be crashed",
    )
    config.pluginmanager.register(SessionSummary(config), "durably-summary")
    crash_count(config)  # complain early


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """Recorded runs of this test, in the folder ``histories`` beside it; see :class:`durably.testing.Golden`."""
    name = f"{request.path.stem}.{file_name(request.node.name)}"
    record = cast(RecordMode, request.config.getoption("--history-record"))
    kept = Golden(request.path.parent / DIRECTORY, name, record)
    yield kept
    keep_goldens(request.node, kept.used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    setting = item.config.getoption("--durably-network-guard")
    names = {"crash_matrix", "golden", "crash_point"}
    if setting == "off" or (setting == "auto" and not names & set(getattr(item, "fixturenames", ()))):
        return (yield)
    with NetworkGuard() as guard:
        try:
            return (yield)
        finally:
            if guard.refused:  # also where something swallowed the error, or turned it into another
                pytest.fail(str(guard.refused[0]), pytrace=False)
