"""The report of an audit: a file of findings, each there once however often it is added."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Finding", "Report"]


class Finding(BaseModel):
    """One thing a maintainer should know."""

    model_config = ConfigDict(frozen=True)

    title: str = Field(description="A few words.")
    detail: str = Field(description="One sentence with the numbers.")
    where: str = Field(default="", description="path:line, if there is one place.")


class Report:
    """Findings in a file, one JSON object a line.

    Args:
        path: The file; made with the first finding.
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
            self.append(id, finding)

    def append(self, id: str, finding: Finding) -> None:
        """Append a finding, whether or not one with this id is there."""
        line = json.dumps({"id": id, **finding.model_dump()}, ensure_ascii=False)
        descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            # One write for the whole line: a crash leaves it there whole or not at all, never half of it.
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)
