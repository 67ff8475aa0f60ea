"""What was really done: a list kept outside the agent, which no crash rolls back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from durably.core.steps import Point, StepInfo, _current

__all__ = ["EffectLedger", "Entry", "EntryKind"]

EntryKind = Literal["started", "ended", "committed", "crash"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was seen from outside.

    Attributes:
        kind: ``started`` (a body begins), ``ended`` (it returned: its effect is done), ``committed`` (the engine says
            that the step is recorded), ``crash``.
        function: The durable function.
        run_id: Its run.
        key: The step key.
        life: How many crashes came before it.
        attempt: The attempt the body saw, from 1; 0 where no body ran.
        idempotency_key: The key the body saw.
        used_key: Whether the body asked for its idempotency key; known once it has ended.
        at: The point of a crash.
    """

    kind: EntryKind
    function: str
    run_id: str
    key: str
    life: int = 0
    attempt: int = 0
    idempotency_key: str = ""
    used_key: bool = False
    at: str = ""


class EffectLedger:
    """Records each execution of a body and each crash. Bodies report by themselves where it is a backend's probe.

    Args:
        path: A file to keep it in, for lives in other processes; left out, it is kept in memory.

    Attributes:
        entries: Everything, in order.
        life: How many crashes there were.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.entries: list[Entry] = []
        self.life = 0
        self._path = None if path is None else Path(path)
        if self._path is not None and self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            self.entries = [Entry(**json.loads(line)) for line in lines]
            self.life = sum(1 for entry in self.entries if entry.kind == "crash")

    def __call__(self, point: Point) -> None:
        """Called by the engine at each point."""
        if point.name == "before_body":
            self._start(point)
        elif point.name == "after_effect":
            self._add("ended", point, _current.get())
        elif point.name == "after_commit":
            self._add("committed", point, None)

    def crashed(self, point: Point) -> None:
        """Note a crash: what follows belongs to the next life."""
        self._add("crash", point, None)
        self.life += 1

    def _start(self, point: Point) -> None:
        info = _current.get()
        if info is not None:
            # The body sees this copy, which notices whether the body asks for its idempotency key.
            info = _WatchedStep.of(info)
            _current.set(info)
        self._add("started", point, info)

    def _add(self, kind: EntryKind, point: Point, info: StepInfo | None) -> None:
        at = point.name if kind == "crash" else ""
        place = (kind, point.function, point.run_id, point.key, self.life)
        if isinstance(info, _WatchedStep):
            entry = Entry(*place, info.attempt, info.shown_key, info.used_key, at)
        else:
            entry = Entry(*place, at=at)
        self.entries.append(entry)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry)) + "\n")

    # -- questions

    def of(self, kind: EntryKind, key: str | None = None) -> list[Entry]:
        """The entries of a kind, of one step or of all."""
        return [each for each in self.entries if each.kind == kind and key in (None, each.key)]

    def starts(self, key: str) -> int:
        """How often the body of a step began."""
        return len(self.of("started", key))

    def effects(self, key: str) -> int:
        """How often the body of a step was carried out to its end."""
        return len(self.of("ended", key))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class _WatchedStep(StepInfo):
    """What a body sees of its step under the harness."""

    __slots__ = ("shown_key", "used_key")

    shown_key: str
    used_key: bool

    @classmethod
    def of(cls, info: StepInfo) -> _WatchedStep:
        beat: Callable[[], None] = info.heartbeat
        watched = cls(info.run_id, info.key, info.attempt, info.resources, beat)
        watched.shown_key = info.idempotency_key
        watched.used_key = False
        return watched

    @property
    def idempotency_key(self) -> str:
        self.used_key = True
        return self.shown_key
