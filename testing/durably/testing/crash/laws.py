"""The laws: what must hold of a run that was crashed, beside the run that was not.

Each law is one function of the crash-free cell and the crashed one. It yields what it found broken, in words for
somebody who meets durable execution for the first time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from durably.core import AgentResult
from durably.core.backend import RunStatus
from durably.core.ids import derive_id
from durably.core.messages import ToolResultMessage
from durably.testing.crash.compare import Difference, first_difference, same_text
from durably.testing.crash.experiment import Cell
from durably.testing.crash.ledger import Entry

__all__ = ["LAWS", "Law", "Violation", "broken_laws", "no_secrets", "was_interrupted"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A law that does not hold.

    Attributes:
        law: Its name, such as ``"L1"``.
        found: What was seen.
        meaning: Why that is wrong and what to do about it.
        step: The key of the step it is about; empty if it is about the run.
        difference: The first difference from the run without a crash, or ``None``.
    """

    law: str
    found: str
    meaning: str
    step: str = ""
    difference: Difference | None = None


Law = Callable[[Cell, Cell], Iterator[Violation]]

ENGINE = "This is a fault of the backend, not of your agent: no code of yours can cause it."
AT_LEAST_ONCE = (
    "A crash can fall between an effect and the record of it, so a step's body may run again after the crash. Hand "
    "current_step().idempotency_key to whatever has the effect (a payment provider, a unique column), which then "
    "ignores the second request; or declare the tool @tool(effect='at_most_once'), which never repeats it and "
    "reports it as interrupted instead."
)
KEY_IGNORED = (
    "The step ran again after the crash, as steps may, under the same idempotency key. The body asked for that key, "
    "but whatever has the effect does not look at it: it must remember the keys it has seen and do nothing for one it "
    "knows, as payment providers do and as a unique column does."
)
DECIDES = (
    "Code outside the steps runs again from its beginning after a crash, and must take the same way as before. It took "
    "another one, so it looked at something that no record holds: the clock, a random number, the order of a set, a "
    "global variable, a file. Read such things inside a step, ctx.step.run('look', ...), which remembers the value."
)


def same_outcome(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L1: the result, and the world in the end, are those of the run without a crash."""
    if cell.error is not None and cell.error.get("type") == "NonDeterminismError" and calm.error is None:
        step = str(cell.error.get("step", ""))
        found = f"after the crash the code asked for {cell.error.get('asked')}, where the run had recorded "
        yield Violation("L1", f"{found}{cell.error.get('recorded')}", DECIDES, step)
        return
    if _kind(cell) != _kind(calm) or not same_text(cell.output, calm.output):
        difference = first_difference(calm.history, cell.history)
        found = f"the run came to {_outcome(cell)} instead of {_outcome(calm)}"
        yield Violation("L1", found, _why_result(calm, cell), _doubled(calm, cell), difference)
    if not same_text(cell.state, calm.state):
        step = _doubled(calm, cell)
        again = (
            AT_LEAST_ONCE if step and not any(each.used_key for each in cell.ledger.of("ended", step)) else KEY_IGNORED
        )
        blame = f"step {step!r} had its effect {_times(cell.ledger.effects(step))} and " if step else ""
        found = f"{blame}the world is not the one without the crash: {cell.state} instead of {calm.state}"
        yield Violation("L1", found, again if step else DECIDES, step)


def _kind(cell: Cell) -> tuple[object, object]:
    return (cell.history.status if len(cell.history) else None, cell.error and cell.error.get("type"))


def _outcome(cell: Cell) -> str:
    if cell.error is not None:
        return f"the error {cell.error.get('type')}: {cell.error.get('message', '')}"
    return "nothing" if cell.output is None else cell.output


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _why_result(calm: Cell, cell: Cell) -> str:
    return AT_LEAST_ONCE if _doubled(calm, cell) else DECIDES


def _doubled(calm: Cell, cell: Cell) -> str:
    """The step most likely to blame: carried out more often than without a crash, at best without asking for a key."""
    done, usual = (Counter(entry.key for entry in each.ledger.of("ended")) for each in (cell, calm))
    suspects = [entry for entry in cell.ledger.of("ended") if done[entry.key] > usual[entry.key]]
    return min(suspects, key=_innocence).key if suspects else ""


def _innocence(entry: Entry) -> tuple[bool, bool]:
    """Sorts steps by how unlikely it is that carrying them out twice does harm."""
    step_id = entry.key.rpartition("/")[2].partition(":")[0]
    return (step_id in ("load-context", "load-history", "think"), entry.used_key)


def recorded_never_runs(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L2: no body starts once its step is recorded."""
    committed: set[tuple[str, str]] = set()
    for entry in cell.ledger:
        if entry.kind == "committed":
            committed.add((entry.run_id, entry.key))
        elif entry.kind == "started" and (entry.run_id, entry.key) in committed:
            yield Violation(
                "L2", f"the body of {entry.key!r} started again after its record was written", ENGINE, entry.key
            )
            return


def bounded_starts(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L3: a body starts once, and once more for each crash that could have cut it off and for each recorded retry."""
    allowed: dict[tuple[str, str], int] = {}
    open_steps: set[tuple[str, str]] = set()
    for entry in cell.ledger:
        step = (entry.run_id, entry.key)
        if entry.kind == "started":
            open_steps.add(step)
        elif entry.kind == "committed":
            open_steps.discard(step)
        elif entry.kind == "crash":
            for each in open_steps:
                allowed[each] = allowed.get(each, 0) + 1
            open_steps.clear()
    starts = Counter((entry.run_id, entry.key) for entry in cell.ledger.of("started"))
    retries: Counter[tuple[str, str]] = Counter()
    once_only: set[tuple[str, str]] = set()
    for log in cell.after.runs.values():
        for record in log.history:
            if record.status == "retrying":
                retries[log.id, record.key] += 1
            elif record.kind == "step" and record.status == "started":
                once_only.add((log.id, record.key))
    for step, count in starts.items():
        bound = 1 if step in once_only else 1 + allowed.get(step, 0) + retries[step]
        if count > bound:
            found = f"the body of {step[1]!r} started {count} times; {bound} can be accounted for"
            yield Violation("L3", found, ENGINE, step[1])


def append_only(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L4: what was recorded before a crash is there after it, unchanged; numbers have no gaps."""
    for snapshot in cell.before:
        for run_id, log in snapshot.runs.items():
            later = cell.after.runs.get(run_id)
            kept = later.history.records[: len(log.history)] if later else ()
            if kept != log.history.records:
                yield Violation("L4", f"records of run {run_id} were changed or lost by the recovery", ENGINE)
    for log in cell.after.runs.values():
        if [record.seq for record in log.history] != list(range(len(log.history))):
            yield Violation("L4", f"the records of run {log.id} are not numbered one after the other", ENGINE)


def same_records(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L5: the recovered run recorded the same steps, inputs and values; times and attempts aside."""
    difference = first_difference(calm.history, cell.history)
    if difference is not None:
        found = f"the records differ from those without a crash, first at {difference.key or 'the end'!r}"
        doubled = _doubled(calm, cell)
        yield Violation("L5", found, AT_LEAST_ONCE if doubled else DECIDES, difference.key, difference)


def valid_transcript(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L6: each tool call has exactly one result, with its own id, in the order of the calls."""
    if not isinstance(cell.value, AgentResult) or cell.value._messages is None:
        return
    if cell is not calm and first_difference(calm.history, cell.history) is None:
        return  # the conversation is made of the records, and that of the calm run was looked at
    owed: list[str] = []
    for message in cell.value.messages:
        if isinstance(message, ToolResultMessage):
            if not owed or owed.pop(0) != message.call_id:
                yield Violation("L6", f"the result of call {message.call_id} has no call, or the wrong place", ENGINE)
                return
        elif owed:
            yield Violation("L6", f"the call {owed[0]} has no result", ENGINE)
            return
        else:
            owed = [call.id for call in getattr(message, "tool_calls", ())]


def events_once(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L7: as many events were delivered as without a crash, each under the id its step gives it."""
    if cell.after.events != calm.after.events:
        found = f"{cell.after.events} events were delivered instead of {calm.after.events}"
        yield Violation("L7", found, ENGINE)
    started = sorted(_by_event(cell)), sorted(_by_event(calm))
    if started[0] != started[1] and cell.run_id == calm.run_id:
        yield Violation("L7", f"events started the runs {started[0]} instead of {started[1]}", ENGINE)


def _by_event(cell: Cell) -> list[str]:
    return [
        f"{log.function} {log.id}" for log in cell.after.runs.values() if log.parent is None and log.id != cell.run_id
    ]


def children_once(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L8: one child run for each call, under the id that its step gives it."""
    for log in cell.after.runs.values():
        calls = {derive_id("child", log.id, record.key) for record in log.history if record.kind == "invoke"}
        children = [each.id for each in cell.after.runs.values() if each.parent == log.id]
        if len(children) != len(set(children)) or set(children) - calls:
            yield Violation("L8", f"run {log.id} made {len(calls)} calls and has {len(children)} child runs", ENGINE)
    counts = [len([log for log in each.after.runs.values() if log.parent]) for each in (calm, cell)]
    if counts[0] != counts[1]:
        yield Violation("L8", f"there are {counts[1]} child runs instead of {counts[0]}", ENGINE)


def steady_keys(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L9: every execution of a step sees the same idempotency key, and no other step sees it."""
    seen: dict[str, tuple[str, str]] = {}
    keys: dict[tuple[str, str], str] = {}
    for entry in cell.ledger.of("started"):
        step = (entry.run_id, entry.key)
        if not entry.idempotency_key:
            continue
        if keys.setdefault(step, entry.idempotency_key) != entry.idempotency_key:
            yield Violation("L9", f"{entry.key!r} was given another idempotency key after the crash", ENGINE, entry.key)
        if seen.setdefault(entry.idempotency_key, step) != step:
            yield Violation("L9", f"{entry.key!r} was given the idempotency key of another step", ENGINE, entry.key)


def same_types(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L10: the caller gets a value of the same type, live and from the records."""
    if cell.error is None and type(cell.value) is not type(calm.value):
        found = f"the result is a {type(cell.value).__name__} after the crash and a {type(calm.value).__name__} without"
        yield Violation("L10", found, ENGINE)
    elif cell.output == calm.output and cell.value != calm.value:
        yield Violation("L10", "the result is written as the same JSON, but does not compare equal", ENGINE)


def ends(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L12: the run comes to its end once the crashes are over."""
    if cell.trouble:
        yield Violation("L12", cell.trouble, "A run must always end by itself when a worker is up again. " + ENGINE)
        return
    live = [log.id for log in cell.after.runs.values() if log.status is RunStatus.RUNNING]
    calm_live = [log.id for log in calm.after.runs.values() if log.status is RunStatus.RUNNING]
    if len(live) > len(calm_live):
        yield Violation("L12", f"the runs {', '.join(live)} are still live although nothing more will happen", ENGINE)


def ends_once(calm: Cell, cell: Cell) -> Iterator[Violation]:
    """L13: a run ends once, and nothing is recorded after that."""
    for log in cell.after.runs.values():
        terminal = [record for record in log.history if record.kind == "run" and record.final]
        if log.status.final and (len(terminal) > 1 or (terminal and log.history[-1] is not terminal[0])):
            yield Violation("L13", f"run {log.id} has records after its end, or two ends", ENGINE)


LAWS: dict[str, Law] = {
    "L1": same_outcome,
    "L2": recorded_never_runs,
    "L3": bounded_starts,
    "L4": append_only,
    "L5": same_records,
    "L6": valid_transcript,
    "L7": events_once,
    "L8": children_once,
    "L9": steady_keys,
    "L10": same_types,
    "L12": ends,
    "L13": ends_once,
}
"""The laws that every cell is held to. L11 is about changed code (``durably.testing.crash.code_changes``), L14 about
secrets and damaged journals (``no_secrets`` here, and the backends' own tests)."""


def broken_laws(calm: Cell, cell: Cell) -> list[Violation]:
    """Hold a cell to every law; what is broken, the most telling first."""
    found = [violation for law in LAWS.values() for violation in law(calm, cell)]
    if was_interrupted(cell):
        found = [violation for violation in found if violation.law not in ("L1", "L5", "L7", "L8", "L10")]
    if any(violation.law == "L1" for violation in found):
        found = [violation for violation in found if violation.law != "L5"]  # the same thing, said twice
    return found


def was_interrupted(cell: Cell) -> bool:
    """Whether a crash cut off a step that may run only once: its caller is told so, and the run may end otherwise."""
    cut_off = {entry.key for entry in cell.ledger.of("crash")}
    return any(
        record.key in cut_off and record.error is not None and record.error.get("type") == "StepInterruptedError"
        for log in cell.after.runs.values()
        for record in log.history
    )


def no_secrets(cell: Cell, secrets: Sequence[str]) -> Iterator[Violation]:
    """L14: no secret is in a record."""
    for log in cell.after.runs.values() if secrets else ():
        text = log.history.to_jsonl()
        for number, secret in enumerate(secrets):
            if secret in text:
                found = f"secret number {number + 1} stands in a record of {log.function!r}"
                meaning = (
                    "Give secrets to the backend as resources= or secrets=, and pass none to a step as an argument."
                )
                yield Violation("L14", found, meaning)
