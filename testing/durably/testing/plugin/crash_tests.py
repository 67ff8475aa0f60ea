"""Crash tests in pytest: the fixture ``crash_matrix``, and the mark ``crashtest`` that makes a test of each point."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from durably.core import DurablyError
from durably.testing.crash.matrix import crash_matrix as run_matrix
from durably.testing.crash.matrix import list_points
from durably.testing.crash.report import Report
from durably.testing.crash.scenario import CrashTest
from durably.testing.plugin.options import crash_count, merge_options
from durably.testing.plugin.summary import keep_report

try:
    from durably.testing.crash.terminal import progress_bar
except ImportError:  # pytest loads this plugin wherever durably is installed, also without the extra [testing]
    progress_bar = None  # type: ignore[assignment]

__all__ = ["CrashMatrix", "crash_dir", "crash_matrix", "pytest_generate_tests", "pytest_pyfunc_call"]


class CrashMatrix:
    """The fixture ``crash_matrix``: as :func:`durably.testing.crash_matrix`, but it fails the test by itself.

    ``await crash_matrix(...)`` in an async test, ``crash_matrix.run(...)`` in any other. Options of the command line
    go before arguments.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    async def __call__(self, target: Any, data: Any = None, *, check: bool = True, **options: Any) -> Report:
        """Run the matrix.

        Args:
            target: See :func:`durably.testing.crash_matrix`.
            data: The same.
            check: Whether to fail the test if a law is broken. Left at ``True`` nothing can be overlooked.
            options: The same.
        """
        config = self._item.config
        if crash_count(config) == 0:
            pytest.skip("--crash=off")
        with ExitStack() as stack:
            if progress_bar is not None and config.getoption("capture") == "no" and sys.stderr.isatty():
                options.setdefault("progress", stack.enter_context(progress_bar()))
            report = await run_matrix(target, data, **merge_options(config, options))
        report.reproduce = f"pytest {self._item.nodeid!r} --crash-repro={{label!r}}"
        keep_report(self._item, report)
        if check and not report.ok:
            pytest.fail(str(report), pytrace=False)
        return report

    def run(self, target: Any, data: Any = None, *, check: bool = True, **options: Any) -> Report:
        """The same, for tests that are not async."""
        return _in_thread(self(target, data, check=check, **options))


@pytest.fixture
def crash_matrix(request: pytest.FixtureRequest) -> CrashMatrix:
    """Crash a durable function everywhere; see :class:`CrashMatrix`."""
    return CrashMatrix(request.node)


@pytest.fixture
def crash_dir(tmp_path: Path) -> Path:
    """In a ``crashtest``: the directory of the experiment, for a world that outlives its process."""
    return tmp_path


def _in_thread(work: Coroutine[Any, Any, Report]) -> Report:
    """Run async work from sync code, also where a loop runs already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


# -- the mark


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test marked ``crashtest`` into one test for each point."""
    mark = metafunc.definition.get_closest_marker("crashtest")
    if mark is None:
        return
    config = metafunc.config
    options = merge_options(config, dict(mark.kwargs))
    if "repro" in options:
        labels = [options["repro"]]
    elif crash_count(config) == 0:
        labels = ["off"]
    else:
        labels = _labels(metafunc, options)
    metafunc.fixturenames.append("crash_point")
    metafunc.parametrize("crash_point", labels)


def _labels(metafunc: pytest.Metafunc, options: dict[str, Any]) -> list[str]:
    where = metafunc.definition.nodeid
    target, data, rest = _scenario_of(metafunc.function, where)
    chosen = {name: options[name] for name in ("points", "mode", "backend") if name in options}

    async def look() -> list[str]:
        return await list_points(target, data, **chosen, **rest)

    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(asyncio.run, look()).result()
        except DurablyError as error:
            pytest.fail(f"{where}: {error}", pytrace=False)


def _scenario_of(factory: Callable[..., Any], where: str) -> tuple[Any, Any, dict[str, Any]]:
    """What the body of a crash test says: the target, the data and further arguments of the matrix."""
    made = CrashTest.made_by(factory)
    if made is None:
        pytest.fail(
            f"{where}: a crashtest is a plain 'def' that returns (agent, data) or CrashTest(agent, data, state=...), "
            "made afresh each time it is called; it may take crash_dir and no other fixture",
            pytrace=False,
        )
    return factory, made.data, {"events": made.events, "functions": made.functions}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Call a test marked ``crashtest``: crash what it returns at its point."""
    mark = pyfuncitem.get_closest_marker("crashtest")
    if mark is None:
        return None
    label = pyfuncitem.callspec.params["crash_point"]
    if label == "off":
        pytest.skip("--crash=off")
    target, data, rest = _scenario_of(pyfuncitem.obj, pyfuncitem.nodeid)
    options = {**mark.kwargs, **rest}
    if pyfuncitem.config.getoption("--crash-repro") is None:
        options["first"] = label
    CrashMatrix(pyfuncitem).run(target, data, **options)
    return True
