"""L1, L6, L10, L11: what the caller gets, and what the world has come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durably.core.history import History
from durably.core.messages import Message, ToolResultMessage
from durably.testing.difference import Difference, first_difference, same_error, same_text
from durably.testing.laws.violation import (
    DECIDES,
    ENGINE,
    NO_LONGER_FITS,
    Violation,
    explain_repeated_effect,
    explain_repeated_step,
    times,
)
from durably.testing.ledger import Repeated

__all__ = ["Outcome", "same_effects", "same_outcome", "same_value", "valid_transcript"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to.

    Attributes:
        status: Its last status, or ``None`` if nothing is known of it.
        output: Its result as JSON text.
        error: Its error as JSON data; left out of an expectation, any error is right.
        state: What the world had come to, as text; ``None`` if nobody looked.
        history: Its records, if there are any.
    """

    status: str | None
    output: str | None = None
    error: Mapping[str, Any] | None = None
    state: str | None = None
    history: History | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"the error {self.error.get('type')}: {self.error.get('message', '')}"
        if self.output is not None:
            return self.output
        return "nothing" if self.status in (None, "completed") else f"a run that {self.status}"


def same_outcome(expected: Outcome, found: Outcome, repeated: Repeated | None = None) -> Iterator[Violation]:
    """L1: the result, and the world at the end, equal those of the run without a crash.

    Args:
        expected: What the run without a crash came to.
        found: What the other one came to.
        repeated: The step to blame for a difference, if the ledgers show one (``ledger.repeated_step``).
    """
    error = found.error or {}
    if error.get("type") == "NonDeterminismError" and expected.error is None:
        what = f"after the crash the code asked for {error.get('asked')}, where the run had recorded "
        yield Violation("L1", f"{what}{error.get('recorded')}", DECIDES, str(error.get("step", "")))
        return
    step = "" if repeated is None else repeated.key
    if not _same_end(expected, found) or not same_text(found.output, expected.output):
        meaning = explain_repeated_step(repeated is not None)
        yield Violation(
            "L1", f"the run came to {found} instead of {expected}", meaning, step, _difference(expected, found)
        )
    if not same_text(found.state, expected.state):
        blame = "" if repeated is None else f"step {step!r} had its effect {times(repeated.times)} and "
        what = f"{blame}the world differs from the run without a crash: {found.state} instead of {expected.state}"
        meaning = explain_repeated_effect(repeated is not None, repeated is not None and repeated.used_key)
        yield Violation("L1", what, meaning, step)


def _same_end(expected: Outcome, found: Outcome) -> bool:
    if expected.status != found.status:
        return False
    # Messages may name attempts and times; the class of an error is what its callers decide by.
    return expected.error is None or (found.error or {}).get("type") == expected.error.get("type")


def _difference(expected: Outcome, found: Outcome) -> Difference | None:
    if expected.history is None or found.history is None:
        return None
    return first_difference(expected.history, found.history)


def same_effects(
    expected: Mapping[str, int], found: Mapping[str, int], *, at_least_once: bool = False
) -> Iterator[Violation]:
    """L1: each effect happened as often as it had to, and no other one did.

    Args:
        expected: How often each must have happened, by any name for it.
        found: How often each did.
        at_least_once: Whether more often is right too: where crashes happened and nothing looks at idempotency keys.
    """
    for name in expected.keys() | found.keys():
        wanted, count = expected.get(name, 0), found.get(name, 0)
        if count < wanted or (count > wanted and not (at_least_once and wanted)):
            what = f"the effect {name!r} happened {times(count)} instead of {times(wanted)}"
            yield Violation("L1", what, explain_repeated_step(count > wanted > 0))


def change_is_noticed(
    expected: Outcome, found: Outcome, started: Sequence[str], *, change: str, step: str = ""
) -> Iterator[Violation]:
    """L11: changed code is detected before any new effect, or gives the same result.

    Args:
        expected: What the run came to on the unchanged code.
        found: What it came to when it went on with the changed code.
        started: The keys of the steps whose bodies started on the changed code.
        change: The change, in words.
        step: The key of the step that was changed.
    """
    noticed = found.error is not None and found.error.get("type") == "NonDeterminismError"
    if not noticed and found.output == expected.output and same_error(found.error, expected.error):
        return
    if not noticed:
        what = found.error if found.error is not None else found.output
        yield Violation("L11", f"{change} went unnoticed: the run came to {what}", NO_LONGER_FITS, step)
    elif started:
        yield Violation("L11", f"{change} was noticed only after {started[0]!r} had run", NO_LONGER_FITS, step)


def _kind(value: Any) -> tuple[str, str]:
    # By name: a factory makes an agent anew for each run, and with it the class of a typed result.
    return type(value).__module__, type(value).__qualname__


def same_value(expected: Any, found: Any) -> Iterator[Violation]:
    """L10: two values, one live and one rebuilt from the records, have the same type and are equal."""
    if _kind(found) != _kind(expected):
        what = f"the result is a {type(found).__name__} after the crash and a {type(expected).__name__} without"
        yield Violation("L10", what, ENGINE)
    elif found != expected:
        yield Violation("L10", "the result is written as the same JSON, but does not compare equal", ENGINE)


def valid_transcript(messages: Iterable[Message]) -> Iterator[Violation]:
    """L6: each tool call has exactly one result, with its own id, in the order of the calls."""
    owed: list[str] = []
    for message in messages:
        if isinstance(message, ToolResultMessage):
            if not owed or owed.pop(0) != message.call_id:
                yield Violation("L6", f"the result of call {message.call_id} has no call, or the wrong place", ENGINE)
                return
        elif owed:
            yield Violation("L6", f"the call {owed[0]} has no result", ENGINE)
            return
        else:
            owed = [call.id for call in getattr(message, "tool_calls", ())]
