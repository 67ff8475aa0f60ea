"""The agent: an auditor with four tools that only read and one that has an effect."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from durably.core import Agent, AgentInput, Model, SessionStore, Tool, ToolError, current_step, tool
from examples.audit.corpus import Corpus
from examples.audit.measure import Matches, Measurement, lines_of, measure, search
from examples.audit.report import Finding, Report

__all__ = ["Listing", "audit_agent", "question"]

SHOWN_FILES = 100
READ_LINES = 120

INSTRUCTIONS = """You audit a directory of source code or text. Work in this order:
1. list_files, to see what is there.
2. measure, and search for what is worth a look; call several tools at once.
3. read_file for the places that stand out.
4. add_findings, at least once, with what a maintainer should know. Every number must come from a tool's result.
5. Then answer in three or four sentences of plain text: what this is, how large, and what you would do first.
Take at most 10 turns."""


class Listing(BaseModel):
    """What ``list_files`` returns."""

    files: int
    bytes: int
    by_ending: dict[str, int]
    paths: list[str]
    left_out: dict[str, int]


class _AuditTools:
    """The tools. The long ones call ``heartbeat`` after each file, which tells the engine that they are alive."""

    def __init__(self, read_corpus: Callable[[], Corpus], report: Report) -> None:
        self._read_corpus = read_corpus
        self._report = report

    @cached_property
    def _corpus(self) -> Corpus:
        return self._read_corpus()

    def tools(self) -> list[Tool]:
        pure = tool(effect="pure")
        readers: list[Callable[..., Any]] = [self.list_files, self.read_file, self.measure, self.search]
        return [*(pure(each) for each in readers), tool(self.add_findings)]

    def list_files(self) -> Listing:
        """List the files: how many, how large, which kinds, and what was left out."""
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
        text = self._corpus.texts.get(path)
        if text is None:
            close = difflib.get_close_matches(path, self._corpus.texts, n=3)
            raise ToolError(f"there is no file {path!r} in this audit; close: {', '.join(close) or 'none'}")
        return "\n".join(lines_of(text)[first_line - 1 : first_line - 1 + READ_LINES])

    def measure(self) -> Measurement:
        """Count files, bytes, lines, blank lines, functions, and find the largest file, line and function."""
        return measure(self._corpus.texts, current_step().heartbeat)

    def search(self, texts: Annotated[list[str], Field(min_length=1)]) -> Matches:
        """Find the lines that hold at least one of these texts, letter by letter (no patterns)."""
        return search(self._corpus.texts, texts, current_step().heartbeat)

    def add_findings(self, findings: Annotated[list[Finding], Field(min_length=1)]) -> str:
        """Append findings to the report."""
        step = current_step()
        for number, finding in enumerate(findings):
            # A crash may come after some of them. The body then runs again with the same idempotency key, so the
            # findings that are there keep their ids and only the others are added.
            self._report.add(f"{step.idempotency_key}/{number}", finding)
            step.heartbeat()
        return f"{len(findings)} findings are in the report"


def audit_agent(
    read_corpus: Callable[[], Corpus], model: Model | str, report: Report, *, sessions: SessionStore | None = None
) -> Agent:
    """Returns the agent.

    Args:
        read_corpus: Reads the files, which are all that the tools see; called by the first tool that needs them.
        model: The model, or its name such as ``"anthropic:claude-opus-4-6"``.
        report: Where findings go.
        sessions: Where the conversation is kept.
    """
    return Agent(
        "audit",
        model=model,
        instructions=INSTRUCTIONS,
        tools=_AuditTools(read_corpus, report).tools(),
        sessions=sessions,
        max_iterations=14,
    )


def question(label: str) -> AgentInput:
    """Returns what the agent is asked.

    Args:
        label: What is audited, in words.
    """
    return AgentInput(message=f"Audit {label}.", session_key="audit")
