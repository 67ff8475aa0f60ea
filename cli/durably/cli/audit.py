"""The agent of the demo: an auditor with four tools that read and one that has an effect."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from durably.cli.corpus import Corpus
from durably.cli.ledger import Ledger, append_line
from durably.cli.measure import Matches, Measurement, lines_of, measure, search
from durably.core import Agent, AgentInput, Model, Tool, ToolError, current_step, tool
from durably.core.messages import Message
from durably.core.model import ModelRequest, ModelResponse

__all__ = ["Finding", "Listing", "Report", "audit_agent", "question"]

SHOWN_FILES = 100
READ_LINES = 120

INSTRUCTIONS = """You audit a directory of source code or text. Work in this order:
1. list_files, to see what is there.
2. measure, and search for what is worth a look; call several tools at once.
3. read_file for the places that stand out.
4. add_findings, at least once, with what a maintainer should know. Every number must come from a tool's result.
5. Then answer in three or four sentences of plain text: what this is, how large, and what you would do first.
Take at most 10 turns."""


class Finding(BaseModel):
    """One thing a maintainer should know."""

    model_config = ConfigDict(frozen=True)

    title: str = Field(description="A few words.")
    detail: str = Field(description="One sentence with the numbers.")
    where: str = Field(default="", description="path:line, if there is one place.")


class Listing(BaseModel):
    """What ``list_files`` returns."""

    files: int
    bytes: int
    by_ending: dict[str, int]
    paths: list[str]
    left_out: dict[str, int]


class Report:
    """Findings in a file, each there once however often it is added.

    Args:
        path: The file; one JSON object a line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, str]]:
        """All lines, with the ``id`` of each."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def findings(self) -> list[Finding]:
        """All findings, in order."""
        return [Finding(title=line["title"], detail=line["detail"], where=line["where"]) for line in self.lines()]

    def add(self, id: str, finding: Finding) -> None:
        """Append a finding, unless one with this id is there."""
        if all(line["id"] != id for line in self.lines()):
            append_line(self.path, json.dumps({"id": id, **finding.model_dump()}, ensure_ascii=False))


class _AuditTools:
    """The bodies. Each tells the ledger first, and beats after each file so that it can be killed half-way."""

    def __init__(self, corpus: Callable[[], Corpus], report: Report, ledger: Ledger) -> None:
        self._look = corpus
        self._report = report
        self._ledger = ledger

    @cached_property
    def _corpus(self) -> Corpus:
        return self._look()

    def tools(self) -> list[Tool]:
        pure = tool(effect="pure")
        readers: list[Callable[..., Any]] = [self.list_files, self.read_file, self.measure, self.search]
        return [*(pure(each) for each in readers), tool(self.add_findings)]

    def list_files(self) -> Listing:
        """List the files: how many, how large, which kinds, and what was left out."""
        self._ledger.enter()
        corpus = self._corpus
        endings = Counter(Path(path).suffix or "without ending" for path in corpus.texts)
        return Listing(
            files=len(corpus.texts),
            bytes=corpus.bytes,
            by_ending=dict(sorted(endings.items())),
            paths=list(corpus.texts)[:SHOWN_FILES],
            left_out=dict(sorted(corpus.left_out.items())),
        )

    def read_file(self, path: str, first_line: Annotated[int, Field(ge=1)] = 1) -> str:
        """Read up to 120 lines of one file, from a line on."""
        self._ledger.enter()
        text = self._corpus.texts.get(path)
        if text is None:
            close = difflib.get_close_matches(path, self._corpus.texts, n=3)
            raise ToolError(f"there is no file {path!r} in this audit; close: {', '.join(close) or 'none'}")
        return "\n".join(lines_of(text)[first_line - 1 : first_line - 1 + READ_LINES])

    def measure(self) -> Measurement:
        """Count files, bytes, lines, blank lines, functions, and find the largest file, line and function."""
        self._ledger.enter()
        return measure(self._corpus.texts, current_step().heartbeat)

    def search(self, texts: Annotated[list[str], Field(min_length=1)]) -> Matches:
        """Find the lines that hold at least one of these texts, letter by letter (no patterns)."""
        self._ledger.enter()
        return search(self._corpus.texts, texts, current_step().heartbeat)

    def add_findings(self, findings: Annotated[list[Finding], Field(min_length=1)]) -> str:
        """Append findings to the report."""
        self._ledger.enter()
        step = current_step()
        for number, finding in enumerate(findings):
            # Half of this may be done when the process is killed; the key makes the second try add only the rest.
            self._report.add(f"{step.idempotency_key}/{number}", finding)
            step.heartbeat()
        return f"{len(findings)} findings are in the report"


class _LedgerModel:
    """A model that tells the ledger of each call, and takes its time where a person is to follow."""

    def __init__(self, model: Model, ledger: Ledger, pace: float) -> None:
        self._model = model
        self._ledger = ledger
        self._pace = pace

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, request: ModelRequest) -> ModelResponse:
        self._ledger.enter()
        await asyncio.sleep(self._pace)
        return await self._model.complete(request)


class _LedgerSessions:
    """A store for the conversation that only tells the ledger: the demo starts with an empty one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def load(self, session_key: str) -> list[Message]:
        self._ledger.enter()
        return []

    async def append(self, session_key: str, messages: Sequence[Message], *, key: str) -> None:
        self._ledger.enter()


def audit_agent(
    corpus: Callable[[], Corpus], model: Model, report: Report, ledger: Ledger, *, pace: float = 0.0
) -> Agent:
    """The agent.

    Args:
        corpus: Finds the files, which are all it may read; called by the first tool that needs them.
        model: Who decides.
        report: Where findings go.
        ledger: Where every body notes that it starts.
        pace: Seconds each model call takes at least.
    """

    async def instructions() -> str:
        ledger.enter()
        return INSTRUCTIONS

    return Agent(
        "audit",
        model=_LedgerModel(model, ledger, pace),
        instructions=instructions,
        tools=_AuditTools(corpus, report, ledger).tools(),
        sessions=_LedgerSessions(ledger),
        max_iterations=14,
    )


def question(label: str) -> AgentInput:
    """What the agent is asked."""
    return AgentInput(message=f"Audit {label}.", session_key="demo")
