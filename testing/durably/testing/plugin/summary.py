"""What is told at the end of a session: a line for each crash test, and golden histories that no test asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from durably.testing.crash.report import Report
from durably.testing.goldens import DIRECTORY, unused_goldens

__all__ = ["SessionSummary", "file_name", "keep_goldens", "keep_report"]

PROPERTY = "durably"
"""The user property of a test that carries what the summary needs; it also comes from the workers of xdist."""


def keep_report(item: pytest.Item, report: Report) -> None:
    """Hand the report to the summary, which may live in another process."""
    folder = item.config.getoption("--crash-report")
    if folder:
        path = Path(folder) / f"{file_name(item.nodeid)}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        report.to_html(path)
    seen = {"line": str(report).partition("\n")[0], "warnings": report.warnings}
    item.user_properties.append((PROPERTY, {"report": seen}))


def file_name(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_")


def keep_goldens(item: pytest.Item, used: Iterable[Path]) -> None:
    """Hand the summary the golden files that a test asked for."""
    item.user_properties.append((PROPERTY, {"goldens": [str(path) for path in used]}))


class SessionSummary:
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
