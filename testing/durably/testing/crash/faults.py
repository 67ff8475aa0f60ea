"""Where a crash can happen, and a plan of the crashes to come. Owns no law and no journal: it only fires."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from durably.core.errors import DurablyError, Signal
from durably.core.history import Kind
from durably.core.steps import Point, PointName, Probe

__all__ = [
    "POINTS",
    "Crash",
    "CrashMode",
    "CrashSignal",
    "CrashWitness",
    "FaultPlan",
    "PointNotReachedError",
    "PointSpec",
    "chain",
    "matches",
    "names",
    "never_reached",
]

CrashMode = Literal["inproc", "sigkill"]
"""How a crash is made: a signal that unwinds and drops the event loop's tasks, or the process killed by SIGKILL."""


@dataclass(frozen=True, slots=True)
class PointSpec:
    """A named point at which the harness can crash a run.

    Attributes:
        name: What :class:`Crash` calls it.
        kinds: The kinds of steps that pass it; ``run`` for the run itself.
        meaning: What has happened at this point, and what has not.
    """

    name: PointName
    kinds: tuple[Kind, ...]
    meaning: str


_STEPS: tuple[Kind, ...] = ("step", "invoke", "send_event", "sleep", "wait_for_event")

_SPECS = (
    PointSpec("before_first", ("run",), "the run was handed over, its code has not begun"),
    PointSpec("before_start", _STEPS, "the code asks for a step that has no record"),
    PointSpec("before_body", ("step",), "an attempt was counted, its body has not begun"),
    PointSpec("in_body", ("step",), "the body called current_step().heartbeat()"),
    PointSpec("after_effect", ("step",), "the body returned, nothing is recorded"),
    PointSpec("backing_off", ("step", "run"), "a failed attempt is recorded, the next one waits"),
    PointSpec("registered", ("sleep", "wait_for_event"), "a sleep or a wait is recorded as begun"),
    PointSpec("child_started", ("invoke",), "the child run and the call are recorded"),
    PointSpec("child_done", ("invoke",), "the child ended, the caller has not recorded it"),
    PointSpec("after_send", ("send_event",), "the events are handed over and recorded"),
    PointSpec("after_commit", _STEPS, "the step is recorded, its caller has not been told"),
    PointSpec("replay", _STEPS, "a recorded step is read back; only recovery passes it"),
    PointSpec("before_result", ("run",), "the code returned, the result is not recorded"),
    PointSpec("after_result", ("run",), "the result is recorded, whoever waits has not been told"),
)

POINTS: dict[PointName, PointSpec] = {spec.name: spec for spec in _SPECS}
"""Every named point, in the order a run meets them."""


class CrashSignal(Signal):
    """A crash made by the harness. Nothing in the library catches it; the engine drops everything and is dead.

    Attributes:
        crash: What was planned.
        point: Where it struck.
    """

    def __init__(self, crash: Crash, point: Point) -> None:
        super().__init__(f"crash at {crash.label}")
        self.crash = crash
        self.point = point


class PointNotReachedError(DurablyError, AssertionError):
    """A planned crash point was never reached, so the test tested nothing."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash at a named point.

    Args:
        step: The step key (``"tool-charge:1"``), or a pattern with ``*`` for one of its :func:`names`; empty for a
            point of the run itself.
        at: The point's name, one of :data:`POINTS`.
        occurrence: Which passage, counted from 0 since the crash before it (or since the beginning).
        function: The id of the durable function, or ``None`` for any.

    Raises:
        ValueError: If there is no such point.
    """

    step: str = ""
    at: PointName = "after_effect"
    occurrence: int = 0
    function: str | None = None

    def __post_init__(self) -> None:
        if self.at not in POINTS:
            raise ValueError(f"there is no point {self.at!r}; the points are: {', '.join(POINTS)}")
        if self.occurrence < 0:
            raise ValueError(f"occurrence={self.occurrence}: count passages from 0")

    @property
    def label(self) -> str:
        """One word for it, which :meth:`parse` reads: ``"tool-charge/after_effect"``, ``"child::think/replay#1"``."""
        function = "" if self.function is None else f"{self.function}::"
        number = f"#{self.occurrence}" if self.occurrence else ""
        return f"{function}{self.step or 'run'}/{self.at}{number}"

    @classmethod
    def parse(cls, label: str) -> Crash:
        """Read a label.

        Raises:
            ValueError: If it is not one.
        """
        function, _, rest = label.rpartition("::")
        step, slash, at = rest.rpartition("/")
        at, _, number = at.partition("#")
        if not slash or not (number or "0").isdigit():
            raise ValueError(
                f"{label!r} does not name a crash: write it as 'tool-charge/after_effect' or 'run/replay#1'"
            )
        return cls("" if step == "run" else step, at, int(number or 0), function or None)

    def hits(self, point: Point) -> bool:
        """Whether a passage is one of those it counts."""
        if point.name != self.at or self.function not in (None, point.function):
            return False
        if "*" not in self.step:
            return point.key == self.step
        return any(matches(self.step, each) for each in names(point.key))


class CrashWitness(Protocol):
    """Looks on at each point, and is told of a crash before it strikes. An ``EffectLedger`` is one."""

    def __call__(self, point: Point) -> None: ...

    def crashed(self, point: Point) -> None: ...


@dataclass(slots=True)
class FaultPlan:
    """Planned crashes, in order. Each is armed when the one before it has happened.

    Set it as ``backend.probe``. It outlives the backends it kills: call :meth:`revive` and give it to the next one.

    Args:
        crashes: The crashes.
        mode: ``"inproc"`` raises :class:`CrashSignal`; ``"sigkill"`` ends this very process.
        ledger: Where bodies and crashes are noted: an ``EffectLedger``, or ``None``.

    Attributes:
        fired: The crashes that happened, with the place.
        trace: Every passage since the last crash, in order.
    """

    crashes: Sequence[Crash] = ()
    mode: CrashMode = "inproc"
    ledger: CrashWitness | None = None
    fired: list[tuple[Crash, Point]] = field(default_factory=list)
    trace: list[Point] = field(default_factory=list)
    _passed: int = 0
    _dead: bool = False

    @property
    def pending(self) -> tuple[Crash, ...]:
        """The crashes that have not happened."""
        return tuple(self.crashes[len(self.fired) :])

    def __call__(self, point: Point) -> None:
        """Called by the engine at each point."""
        if self._dead:
            raise CrashSignal(*self.fired[-1])  # a process that is gone comes no further, whatever task it is
        if self.ledger is not None:
            self.ledger(point)
        self.trace.append(point)
        if len(self.fired) >= len(self.crashes):
            return
        crash = self.crashes[len(self.fired)]
        if not crash.hits(point):
            return
        # Counted since the crash before it, so that a second crash can be put into the recovery from the first.
        self._passed += 1
        if self._passed > crash.occurrence:
            self._strike(crash, point)

    def _strike(self, crash: Crash, point: Point) -> None:
        self.fired.append((crash, point))
        self._passed = 0
        if self.ledger is not None:
            self.ledger.crashed(point)
        if self.mode == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        # Code may catch the signal (a bare except, a finally that awaits); every later point raises it again.
        self._dead = True
        raise CrashSignal(crash, point)

    def revive(self) -> None:
        """Begin the next life."""
        self._dead = False
        self.trace.clear()

    def check(self) -> None:
        """Raise if a planned crash did not happen.

        Raises:
            PointNotReachedError: If a crash never struck; it says what was passed instead.
        """
        if self.pending:
            raise PointNotReachedError(never_reached(self.pending[0].label, self.trace))


def never_reached(what: str, trace: Iterable[Point]) -> str:
    """The sentence about a planned point that nothing passed. Points of the same kind at other steps come first."""
    kind = what.rpartition("/")[2].partition("#")[0]
    points = sorted(trace, key=lambda point: point.name != kind)
    seen = dict.fromkeys(f"{point.key or 'run'}/{point.name}" for point in points)
    shown = ", ".join(list(seen)[:12]) + (f" and {len(seen) - 12} more" if len(seen) > 12 else "")
    return (
        f"the crash {what} never happened: no run passed that point, so this tested nothing. Check the step's key and "
        f"the point's name. The run passed: {shown or 'no point at all'}"
    )


def chain(*probes: Probe | None) -> Probe:
    """Several probes as one; the first ones look on before a later one crashes."""

    def probe(point: Point) -> Awaitable[None] | None:
        pauses = [pause for each in probes if each is not None and (pause := each(point)) is not None]
        return _all(pauses) if pauses else None

    return probe


async def _all(pauses: Sequence[Awaitable[None]]) -> None:
    for pause in pauses:
        await pause


def names(key: str) -> tuple[str, str, str]:
    """What a pattern may call a step: its key, its key without the branches it stands in, and its step id."""
    alone = key.rpartition("/")[2]
    return key, alone, alone.partition(":")[0]


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern fits a whole text; ``*`` stands for anything, all else (brackets too) for itself."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text) is not None
