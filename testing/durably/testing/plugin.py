"""The pytest plugin: the fixtures ``crash_matrix`` and ``golden``, the mark ``crashtest``, options and the fuse."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from durably.core import DurablyError
from durably.testing.crash.matrix import crash_matrix as run_matrix
from durably.testing.crash.matrix import list_points
from durably.testing.crash.report import Report
from durably.testing.crash.scenario import CrashTest
from durably.testing.goldens import DIRECTORY, Golden, RecordMode, unused_goldens
from durably.testing.network_guard import NetworkFuse

try:
    from durably.testing.crash.terminal import progress_bar
except ImportError:  # pytest loads this plugin wherever durably is installed, also without the extra [testing]
    progress_bar = None  # type: ignore[assignment]

__all__ = ["CrashMatrix"]

PROPERTY = "durably"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("durably", "crash tests of durable functions and agents")
    group.addoption("--crash", metavar="off|single|pairs|N", help="crashes in one run, instead of what the test says")
    group.addoption("--crash-points", metavar="GLOB", help="only points such as 'after_effect' or 'tool-*/*'")
    group.addoption("--crash-mode", choices=["inproc", "sigkill"], help="how crashes are made (default: inproc)")
    group.addoption("--crash-repro", metavar="LABEL", help="run one cell again: the label that a failure printed")
    group.addoption("--crash-report", metavar="DIR", help="write an HTML report for each crash test into a folder")
    group.addoption("--durably-backend", metavar="NAME", help="the backend of crash tests (default: memory)")
    group.addoption(
        "--durably-fuse",
        choices=["auto", "on", "off"],
        default="auto",
        help="which tests must not reach the network: crash tests and goldens (auto), all (on), none (off)",
    )
    group.addoption(
        "--history-record",
        choices=["none", "new", "rewrite"],
        default="none",
        help="record golden histories: none (a missing one fails), new (those that are missing), rewrite (all)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "crashtest(points='*', crashes=1, backend=None, mode='inproc', events=()): the test returns (agent, data) or a "
        "CrashTest, and becomes one test for each point at which it can be crashed",
    )
    config.stash[_KEEPER] = _Keeper(config)
    config.pluginmanager.register(config.stash[_KEEPER], "durably-goldens")
    _crashes(config.getoption("--crash"))  # complain early


def _crashes(option: str | None) -> int | None:
    """How many crashes the option asks for; 0 for none, ``None`` if it was not given."""
    words = {"off": 0, "single": 1, "pairs": 2}
    if option is None or option in words:
        return None if option is None else words[option]
    if not option.isdigit() or option == "0":
        raise pytest.UsageError(f"--crash={option}: use off, single, pairs or a number of crashes")
    return int(option)


def _options(config: pytest.Config, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the matrix: what the test says, and over it what the command line says."""
    merged = dict(given)
    crashes = _crashes(config.getoption("--crash"))
    if crashes:
        merged["crashes"] = crashes
    for name, option in (
        ("points", "--crash-points"),
        ("mode", "--crash-mode"),
        ("backend", "--durably-backend"),
        ("repro", "--crash-repro"),
    ):
        value = config.getoption(option)
        if value is not None:
            merged[name] = value
    return merged


# -- the fixture


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
        if _crashes(config.getoption("--crash")) == 0:
            pytest.skip("--crash=off")
        with ExitStack() as stack:
            if progress_bar is not None and config.getoption("capture") == "no" and sys.stderr.isatty():
                options.setdefault("progress", stack.enter_context(progress_bar()))
            report = await run_matrix(target, data, **_options(config, options))
        report.reproduce = f"pytest {self._item.nodeid!r} --crash-repro={{label!r}}"
        _keep(self._item, report)
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
    """In a ``crashtest``: the directory of the cell, for a world that outlives its process."""
    return tmp_path


def _in_thread(work: Coroutine[Any, Any, Report]) -> Report:
    """Run async work from sync code, also where a loop runs already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _keep(item: pytest.Item, report: Report) -> None:
    """Hand the report to the summary, which may live in another process."""
    folder = item.config.getoption("--crash-report")
    if folder:
        path = Path(folder) / f"{_file_name(item.nodeid)}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        report.to_html(path)
    seen = {"line": str(report).partition("\n")[0], "warnings": report.warnings}
    item.user_properties.append((PROPERTY, {"report": seen}))


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_")


# -- the mark


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("crashtest")
    if mark is None:
        return
    config = metafunc.config
    options = _options(config, dict(mark.kwargs))
    if "repro" in options:
        labels = [options["repro"]]
    elif _crashes(config.getoption("--crash")) == 0:
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


# -- goldens


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """Recorded runs of this test, in the folder ``histories`` beside it; see :class:`durably.testing.Golden`."""
    name = f"{request.path.stem}.{_file_name(request.node.name)}"
    record = cast(RecordMode, request.config.getoption("--history-record"))
    kept = Golden(request.path.parent / DIRECTORY, name, record)
    yield kept
    request.node.user_properties.append((PROPERTY, {"goldens": [str(path) for path in kept.used]}))


class _Keeper:
    """Hears of every test, wherever it ran, and tells at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.used: set[Path] = set()
        self.modules: set[Path] = set()
        self.lines: dict[str, list[str]] = {}
        self.unused: list[Path] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.modules.add(self.config.rootpath / report.nodeid.partition("::")[0])
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                self.used |= {Path(path) for path in value.get("goldens", ())}
                if "report" in value and report.when == "call":
                    found = value["report"]
                    self.lines[report.nodeid] = [found["line"], *(f"  warning: {each}" for each in found["warnings"])]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self.config, "workerinput") or session.testsfailed or not self._whole_run():
            return
        stems = {module.stem for module in self.modules}
        directories = {module.parent / DIRECTORY for module in self.modules}
        self.unused = unused_goldens(directories, self.used, lambda name: name.partition(".")[0] in stems)
        if self.unused and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _whole_run(self) -> bool:
        """Whether no option left tests out; else nothing can be said about what is not used."""
        option = self.config.option
        narrowed = ("keyword", "markexpr", "deselect", "lf", "stepwise", "collectonly")
        return not any(getattr(option, name, None) for name in narrowed) and not any(
            "::" in str(each) for each in self.config.args
        )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.lines:
            terminalreporter.section("crash tests")
            for nodeid, lines in self.lines.items():
                terminalreporter.line(f"{nodeid}: {lines[0]}")
                for line in lines[1:]:
                    terminalreporter.line(line)
        if self.unused:
            terminalreporter.section("unused golden histories")
            for path in self.unused:
                terminalreporter.line(f"{path}: no test asks for it; delete it", red=True)


_KEEPER = pytest.StashKey[_Keeper]()


# -- the fuse


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    setting = item.config.getoption("--durably-fuse")
    names = {"crash_matrix", "golden", "crash_point"}
    if setting == "off" or (setting == "auto" and not names & set(getattr(item, "fixturenames", ()))):
        return (yield)
    with NetworkFuse() as fuse:
        try:
            return (yield)
        finally:
            if fuse.blown:  # also where something swallowed the error, or turned it into another
                pytest.fail(str(fuse.blown[0]), pytrace=False)
