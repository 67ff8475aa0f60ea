"""The deploy check in pytest: the fixture ``deploy_check``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from durably.core import Function
from durably.testing.deploy_check import DeployReport, Runs, check_deploy

__all__ = ["DeployCheck", "deploy_check"]


class DeployCheck:
    """The fixture ``deploy_check``: fails the test if a live run could not go on with the code of now.

    ``await deploy_check([support], "runs.db")`` in an async test, ``deploy_check.run(...)`` in any other.
    """

    def __init__(self, runs: str | None) -> None:
        self._runs = runs

    async def __call__(
        self, functions: Sequence[Function[Any, Any]], runs: Runs | None = None, *, check: bool = True
    ) -> DeployReport:
        """Take the code through each run.

        Args:
            functions: The functions and agents of the new code.
            runs: Where the runs are; see :func:`durably.testing.check_deploy`. The command line's ``--durably-runs``
                goes before it; with neither the test is skipped.
            check: Whether to fail the test if a run does not fit.
        """
        place = self._runs or runs
        if place is None:
            pytest.skip("no runs to check: pytest --durably-runs=runs.db")
        report = await check_deploy(functions, place)
        if check and not report.ok:
            pytest.fail(str(report), pytrace=False)
        return report

    def run(
        self, functions: Sequence[Function[Any, Any]], runs: Runs | None = None, *, check: bool = True
    ) -> DeployReport:
        """The same, for tests that are not async."""
        with ThreadPoolExecutor(1) as pool:  # a loop may run here already
            return pool.submit(asyncio.run, self(functions, runs, check=check)).result()


@pytest.fixture
def deploy_check(request: pytest.FixtureRequest) -> DeployCheck:
    """Take the code of now through live runs; see :class:`DeployCheck`."""
    return DeployCheck(request.config.getoption("--durably-runs"))
