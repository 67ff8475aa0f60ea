"""The ledger: what was really done, kept outside the agent and the engine, so that no crash rolls it back.

Owns the entries, and the file that several processes append to. What must hold of the entries stands in ``laws.py``.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from durably.core import current_step
from durably.core.history import StepRecord
from durably.core.ids import step_id_of
from durably.core.steps import Point, StepInfo, _current

__all__ = ["EffectLedger", "Entry", "EntryKind", "Repeated", "append_line", "repeated_step"]

_wall_clock = time.time
"""The clock as it is, also while the harness shows another one to the code under test."""

EntryKind = Literal["started", "ended", "committed", "crash"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an effect ledger.

    Attributes:
        kind: ``started`` (a body begins), ``ended`` (it returned: its effect is done), ``committed`` (the step is
            recorded), ``crash``.
        function: The durable function; empty if the body itself made the entry.
        run_id: Its run.
        key: The step key.
        life: How many crashes came before it.
        attempt: The attempt the body saw, from 1; 0 where no body ran.
        idempotency_key: The key the body saw.
        used_key: Whether the body asked for its idempotency key; known once it has ended.
        point: The name of the point of a crash; empty for a crash that nobody planned.
        pid: The process that made the entry.
        time: Seconds since 1970, by that process's wall clock. No law looks at it: a clock may be set back.
    """

    kind: EntryKind
    function: str
    run_id: str
    key: str
    life: int = 0
    attempt: int = 0
    idempotency_key: str = ""
    used_key: bool = False
    point: str = ""
    pid: int = 0
    time: float = 0.0


class EffectLedger:
    """Keeps an entry for each start and end of a body, for each commit and for each crash.

    Set it as ``backend.probe``, alone or with ``chain``, and the engine reports them. To be independent of the engine,
    bodies call :meth:`body_started` themselves.

    Args:
        path: A file to keep it in, one JSON object a line, which several processes may append to; left out, it is
            kept in memory.

    Attributes:
        entries: Everything, in order. Of a file: as it was when it was last read, and what was added here.
        life: How many crashes there were.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.entries: list[Entry] = []
        self.life = 0
        self._path = None if path is None else Path(path)
        self.reload()

    def reload(self) -> None:
        """Read the file again, with what other processes have appended."""
        if self._path is None or not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines()
        self.entries = [Entry(**json.loads(line)) for line in lines]
        self.life = sum(1 for entry in self.entries if entry.kind == "crash")

    # -- what is noted

    def __call__(self, point: Point) -> None:
        """Note what a point means for the step; called by the engine at each point."""
        if point.name == "before_body":
            self._start(point)
        elif point.name == "after_effect":
            self._add("ended", point, _current.get())
        elif point.name == "after_commit":
            self._add("committed", point, None)

    def body_started(self) -> None:
        """Note that the body which calls this has started. Not beside the probe: it would be counted twice.

        Raises:
            RuntimeError: If no body is running.
        """
        step = current_step()
        self._append(
            Entry(
                "started",
                "",
                step.run_id,
                step.key,
                self.life,
                step.attempt,
                step.idempotency_key,
                pid=os.getpid(),
                time=_wall_clock(),
            )
        )

    def add_commits(self, records: Iterable[StepRecord]) -> None:
        """Note the commits that records show and that nobody noted: a process may be killed right after a commit."""
        noted = {(entry.run_id, entry.key) for entry in self.of("committed")}
        for record in records:
            if record.final and record.key and (record.run_id, record.key) not in noted:
                self._add("committed", Point("", "", record.run_id, record.key), None)

    def crashed(self, point: Point) -> None:
        """Note a crash: what follows belongs to the next life.

        For a process that was killed, its parent calls this once the process is gone: then every entry of the dead
        process stands before it.
        """
        self._append(self.crash_entry(point, self.life))
        self.life += 1

    @staticmethod
    def crash_entry(point: Point, life: int) -> Entry:
        """The entry of a crash."""
        place = (point.function, point.run_id, point.key, life)
        return Entry("crash", *place, point=point.name, pid=os.getpid(), time=_wall_clock())

    def _start(self, point: Point) -> None:
        info = _current.get()
        if info is not None:
            # The body sees this copy, which notices whether the body asks for its idempotency key.
            info = _WatchedStep.of(info)
            _current.set(info)
        self._add("started", point, info)

    def _add(self, kind: EntryKind, point: Point, info: StepInfo | None) -> None:
        place = (kind, point.function, point.run_id, point.key, self.life)
        seen = (info.attempt, info.shown_key, info.used_key) if isinstance(info, _WatchedStep) else (0, "", False)
        self._append(Entry(*place, *seen, "", os.getpid(), _wall_clock()))

    def _append(self, entry: Entry) -> None:
        self.entries.append(entry)
        if self._path is not None:
            append_line(self._path, json.dumps(asdict(entry)))

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


def append_line(path: Path, line: str) -> None:
    """Append one line to a file that other processes append to as well."""
    # One write to a descriptor opened with O_APPEND: a kill leaves the line there whole or not at all, and lines of
    # two processes or threads do not mix.
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


# -- two ledgers side by side


@dataclass(frozen=True, slots=True)
class Repeated:
    """A step whose body was carried out more often than in a run without a crash.

    Attributes:
        key: The step key.
        times: How often.
        used_key: Whether the body asked for its idempotency key.
    """

    key: str
    times: int
    used_key: bool


def repeated_step(expected: Iterable[Entry], found: Iterable[Entry]) -> Repeated | None:
    """The step most likely to have done harm by being repeated: at best one that never asked for its key."""
    usual = Counter(entry.key for entry in expected if entry.kind == "ended")
    ended = [entry for entry in found if entry.kind == "ended"]
    times = Counter(entry.key for entry in ended)
    suspects = [entry for entry in ended if times[entry.key] > usual[entry.key]]
    if not suspects:
        return None
    key = min(suspects, key=_innocence).key
    return Repeated(key, times[key], any(entry.used_key for entry in ended if entry.key == key))


def _innocence(entry: Entry) -> tuple[bool, bool]:
    """Sorts steps by how unlikely it is that carrying them out twice does harm."""
    step_id = step_id_of(entry.key)
    return (step_id in ("load-context", "load-history", "think"), entry.used_key)


_STEP_FIELDS = tuple(each.name for each in fields(StepInfo))


class _WatchedStep(StepInfo):
    """What a body sees of its step under the harness."""

    __slots__ = ("shown_key", "used_key")

    shown_key: str
    used_key: bool

    @classmethod
    def of(cls, info: StepInfo) -> _WatchedStep:
        watched = cls(*[getattr(info, name) for name in _STEP_FIELDS])
        watched.shown_key = info.idempotency_key
        watched.used_key = False
        return watched

    @property
    def idempotency_key(self) -> str:
        self.used_key = True
        return self.shown_key
