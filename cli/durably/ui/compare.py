"""Two runs side by side, such as a run and its fork: which steps they share, and where they part."""

from __future__ import annotations

from dataclasses import dataclass

from durably.core import Trace
from durably.core.trace_parts import Payload, TraceStep

__all__ = ["Pair", "compare"]


@dataclass(frozen=True)
class Pair:
    """The steps of one key.

    Attributes:
        key: The step key.
        left: The step in the first run, or ``None``.
        right: The step in the second run, or ``None``.
        verdict: ``same``, ``differs``, ``left`` or ``right`` for one that only that run has.
        first: Whether it is the first that is not the same.
    """

    key: str
    left: TraceStep | None
    right: TraceStep | None
    verdict: str
    first: bool = False


def compare(left: Trace, right: Trace) -> list[Pair]:
    """Pair the steps of two runs, in the order of the first run, with those that only the second has where it has them.

    Two steps are the same if they came to the same value or the same error.
    """
    ours, theirs = _by_key(left), _by_key(right)
    added: dict[str, list[str]] = {}
    pending: list[str] = []
    for key in theirs:
        if key in ours:
            added[key], pending = pending, []
        else:
            pending.append(key)
    keys = [each for key in ours for each in (*added.get(key, ()), key)] + pending
    pairs: list[Pair] = []
    parted = False
    for key in keys:
        verdict = _verdict(ours.get(key), theirs.get(key))
        pairs.append(Pair(key, ours.get(key), theirs.get(key), verdict, first=verdict != "same" and not parted))
        parted = parted or verdict != "same"
    return pairs


def _by_key(trace: Trace) -> dict[str, TraceStep]:
    return {step.key: step for step in trace.walk() if step.role != "group"}


def _verdict(left: TraceStep | None, right: TraceStep | None) -> str:
    if left is None or right is None:
        return "left" if right is None else "right"
    return "same" if _outcome(left) == _outcome(right) else "differs"


def _outcome(step: TraceStep) -> tuple[str, str | None, str | None]:
    error = None if step.error is None else str(step.error.get("message"))
    return step.status, _text(step.output), error


def _text(payload: Payload | None) -> str | None:
    return None if payload is None else payload.text
