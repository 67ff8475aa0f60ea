"""The world that a program's effects go to: kept outside the engine, so that no crash rolls it back."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from durably.testing.ledger import append_line

__all__ = ["Note", "World"]


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that happened in the world.

    Attributes:
        kind: What: ``effect``, ``failure``, ``told``, ``sent``, ``entered``, ``left``, ``tick``, ``healed``.
        name: Of what: a node's place, the id of an event, a key, a moment.
        run_id: The run that did it.
    """

    kind: str
    name: str
    run_id: str = ""


class World:
    """Keeps notes, in order.

    Args:
        path: A file to keep them in, one JSON object a line, for several processes, one after the other; left out,
            they are kept in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        self._notes = [Note(**json.loads(line)) for line in lines]

    def note(self, kind: str, name: str, run_id: str = "") -> None:
        """Note that something happened."""
        note = Note(kind, name, run_id)
        self._notes.append(note)
        if self._path is not None:
            append_line(self._path, json.dumps(asdict(note)))

    def of(self, *kinds: str) -> list[Note]:
        """What happened of some kinds, in order."""
        return [note for note in self._notes if note.kind in kinds]

    def count(self, kind: str) -> Counter[str]:
        """How often each thing of a kind happened."""
        return Counter(note.name for note in self.of(kind))

    @property
    def healed(self) -> bool:
        """Whether somebody has mended the world."""
        return bool(self.of("healed"))
