"""L1, L3, L6, L7 and L12, as far as they can be seen from outside of an agent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from durably.testing.crash.experiment import Experiment
from durably.testing.laws import Violation
from durably.testing.laws.bodies import limited_starts
from durably.testing.laws.violation import times
from durably.testing.ledger import repeated_step

__all__ = ["Seen", "broken_laws"]

AGAIN = (
    "The crash fell between the effect and the record that the agent keeps of it, so the agent ran the tool again. "
    "Pass a key that is the same for both attempts to the service that has the effect, which ignores a known key. "
    "A key that is made of the call's id helps only if the model is not asked again. Or let the tool look first "
    "whether its work is done."
)
FORGOT = (
    "The agent had shown the tool's result to its model, or had ended, and ran the tool again after the crash: it had "
    "not stored the result. Store each result before the next request."
)
ELSEWHERE = (
    "After the crash the agent ended differently. Check what it had stored by then, and what it reads that is not "
    "stored: the clock, a random number, a global variable."
)
TRANSCRIPT = (
    "Providers refuse a conversation in which a call has no result, or two, or a result has no call. Store a turn as a "
    "whole, or complete it before the model is asked again."
)
DELIVERED = "Whoever receives these messages must get each of them once. Send each with an id that receivers look at."
STUCK = "A run must come to its end by itself once it is resumed and nothing crashes any more."


@dataclass(slots=True)
class Seen(Experiment):
    """An experiment with an agent of another library.

    Attributes:
        transcripts: What the model was sent, each time: tool calls and results.
        events: The ids that were received, in the end; ``None`` if nobody looked.
    """

    transcripts: list[list[tuple[str, str]]] = field(default_factory=list)
    events: Sequence[str] | None = None


def broken_laws(baseline: Seen, found: Seen) -> list[Violation]:
    """Hold an experiment to the laws, the most telling first."""
    if found.trouble:
        return [Violation("L12", found.trouble, STUCK), *_world(baseline, found), *_starts(baseline, found)]
    checks = (_world, _answer, _starts, _transcripts, _events)
    return [violation for check in checks for violation in check(baseline, found)]


def _world(baseline: Seen, found: Seen) -> Iterator[Violation]:
    """L1: the world is that of the run without a crash."""
    if found.state != baseline.state:
        again = repeated_step(baseline.ledger, found.ledger)
        blame = "" if again is None else f"{again.key} had its effect {times(again.times)} and "
        what = f"{blame}the world differs from the run without a crash: {found.state} instead of {baseline.state}"
        yield Violation("L1", what, ELSEWHERE if again is None else AGAIN, "" if again is None else again.key)


def _answer(baseline: Seen, found: Seen) -> Iterator[Violation]:
    """L1: the answer is that of the run without a crash."""
    if found.output != baseline.output:
        yield Violation("L1", f"it answered {found.output} instead of {baseline.output}", ELSEWHERE)


def _starts(baseline: Seen, found: Seen) -> Iterator[Violation]:
    """L3: a tool runs as often as without a crash, and once more for each crash before the agent went on from it."""
    usual = Counter((entry.run_id, entry.key) for entry in baseline.ledger.of("started"))
    for violation in limited_starts(found.ledger.entries, found.after, usual=usual):
        yield Violation("L3", violation.found.replace("the body of ", ""), FORGOT, violation.step)


def _transcripts(baseline: Seen, found: Seen) -> Iterator[Violation]:
    """L6: each tool call has exactly one result with its own id, behind it."""
    for number, turns in enumerate(found.transcripts):
        wrong = _wrong_turn(turns)
        if wrong:
            yield Violation("L6", f"request {number + 1} to the model has {wrong}", TRANSCRIPT)
            return


def _wrong_turn(turns: Iterable[tuple[str, str]]) -> str:
    open_calls: set[str] = set()
    for kind, call_id in turns:
        if kind == "call":
            open_calls.add(call_id)
        elif call_id not in open_calls:
            return f"a result without a call: {call_id}"
        else:
            open_calls.remove(call_id)
    return f"a call without a result: {min(open_calls)}" if open_calls else ""


def _events(baseline: Seen, found: Seen) -> Iterator[Violation]:
    """L7: the same events were received, each as often."""
    if found.events is None or baseline.events is None:
        return
    got, wanted = Counter(found.events), Counter(baseline.events)
    for each in sorted(got | wanted):
        if got[each] != wanted[each]:
            what = f"the message {each!r} was received {times(got[each])} instead of {times(wanted[each])}"
            yield Violation("L7", what, DELIVERED)
            return
