"""One audit as it is handed to a child process: everything the child needs, in one file of its work folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from durably.cli.audit import Report, audit_agent
from durably.cli.auditor import scripted_auditor
from durably.cli.corpus import Corpus, Root
from durably.cli.kills import Kill
from durably.cli.ledger import Ledger
from durably.core import Agent
from durably.core.model import resolve_model

__all__ = ["RUN_ID", "Job"]

RUN_ID = "audit"


class Job(BaseModel):
    """What to audit, where the work files are, and when to be killed.

    Attributes:
        label: What is audited, in words.
        files: A folder with a copy of the files, so that two runs see the same whatever happens to the files.
        left_out: How many files are not in the copy, by the reason.
        folder: The work folder: journal, report, ledger, log.
        model: The name of a model, or ``None`` for the scripted one.
        pace: Seconds each model call takes at least.
        kills: When the child kills itself, in order.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    files: Path
    left_out: dict[str, int] = {}
    folder: Path
    model: str | None = None
    pace: float = 0.0
    kills: list[Kill] = []

    @property
    def path(self) -> Path:
        """Where this is saved."""
        return self.folder / "job.json"

    @property
    def journal(self) -> Path:
        """The SQLite file."""
        return self.folder / "journal.db"

    @property
    def ledger(self) -> Path:
        """What bodies wrote when they started."""
        return self.folder / "ledger.jsonl"

    @property
    def log(self) -> Path:
        """What the children printed."""
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

    def agent(self, process: int) -> Agent:
        """The agent, for one process."""
        model = scripted_auditor() if self.model is None else resolve_model(self.model)
        return audit_agent(self.corpus, model, self.report, Ledger(self.ledger, process), pace=self.pace)

    def save(self) -> None:
        """Make the folder and write this into it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Job:
        """Read what `save` wrote."""
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
