"""One audit as it is handed to worker processes: what to audit, and the folder with everything they write."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from durably.core import Agent, SQLiteSessions
from examples.audit.agent import audit_agent
from examples.audit.corpus import Corpus, Root
from examples.audit.report import Report
from examples.audit.scripted import ScriptedAuditor

__all__ = ["RUN_ID", "Job"]

RUN_ID = "audit"


class Job(BaseModel):
    """What to audit and where the work files are. It is JSON data, as another process needs it.

    Attributes:
        label: What is audited, in words.
        files: A folder with a copy of the files, so that two runs see the same whatever happens to the files.
        left_out: How many files are not in the copy, by the reason.
        folder: The work folder: journal, conversation, report, ledger, log.
        model: The name of a model, or ``None`` for the scripted one.
        pace: Seconds each model call takes at least.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    files: Path
    left_out: dict[str, int] = {}
    folder: Path
    model: str | None = None
    pace: float = 0.0

    @property
    def journal(self) -> Path:
        """The SQLite file of the backend."""
        return self.folder / "journal.db"

    @property
    def ledger(self) -> Path:
        """What bodies wrote when they started."""
        return self.folder / "ledger.jsonl"

    @property
    def log(self) -> Path:
        """What the workers printed."""
        return self.folder / "worker.log"

    @property
    def report(self) -> Report:
        """The findings."""
        return Report(self.folder / "report.jsonl")

    def corpus(self) -> Corpus:
        """Read the copy."""
        corpus = Corpus([Root(path=self.files)])
        corpus.left_out.update(self.left_out)
        return corpus

    def agent(self) -> Agent:
        """The agent, as it would run without a demo."""
        model = ScriptedAuditor() if self.model is None else self.model
        return audit_agent(self.corpus, model, self.report, sessions=SQLiteSessions(self.folder / "sessions.db"))
