"""Reading a run back from its records, and noticing when the code asks for something else.

`Recorded` is what an engine consults before it runs anything. `RecordedEngine` is a whole engine that has nothing but
records: it can only repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from durably.core.attempts import StepCall
from durably.core.errors import NonDeterminismError, SerializationError, error_from_json
from durably.core.events import Event
from durably.core.history import Kind, StepRecord
from durably.core.reference import FunctionRef
from durably.core.repair import forked_from
from durably.core.run_events import INPUT_STEP
from durably.core.serialization import INPUT_TEXT_LIMIT, Codec, codec_for, encode_input, same_input
from durably.core.step_keys import Branch, KeyedSteps, Scope, StepEngine

__all__ = [
    "EVENT_IDS",
    "MAYBE_EVENT",
    "NOTHING",
    "Recorded",
    "RecordedEngine",
    "RecordedSteps",
    "invoke_input",
    "patch_record",
    "read_output",
    "settle",
]


class Recorded:
    """The records of a run by step key, and the order in which each scope met its steps.

    Args:
        records: All records of the run so far.
    """

    def __init__(self, records: Iterable[StepRecord]) -> None:
        self._last: dict[str, StepRecord] = {}
        self._begun: dict[str, StepRecord] = {}
        self._failures: dict[str, int] = {}
        self._earlier: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._patches: dict[str, StepRecord] = {}
        self._alias: tuple[str, str] | None = None
        self._order: dict[str, list[str]] = {"": []}
        self._barred: dict[str, NonDeterminismError] = {}
        for record in records:
            self.add(record)

    def add(self, record: StepRecord) -> None:
        """Take one more record into account."""
        key = record.key
        if not key:
            self._add_own(record)
            return
        if key not in self._last:
            self._list(key, record.seq)
        self._last[key] = record
        if record.status == "retrying":
            self.add_failure(key)
        elif record.status == "started":
            self._begun[key] = record

    def _add_own(self, record: StepRecord) -> None:
        """Take a record into account that is of no step."""
        if record.kind == "patch":
            self._patches.setdefault(record.name, record)  # branches that ran at once may all have brought it
        elif record.status == "resumed":
            for failed in self.failed_ends():
                self._reopen(failed, record)
        elif record.status == "started":
            origin = forked_from([record])
            self._alias = None if origin is None else (record.run_id, origin.run_id)

    def add_failure(self, key: str) -> None:
        """Count one more failed attempt of a step."""
        self._failures[key] = self._failures.get(key, 0) + 1

    def _list(self, key: str, seq: int) -> None:
        self._first[key] = seq
        prefix = key[: key.rfind("/") + 1]
        if prefix not in self._order:
            self._order[prefix] = []
            gather_key = prefix[: prefix.rindex("[")]
            parent = gather_key[: gather_key.rfind("/") + 1]
            if gather_key not in self._order.get(parent, ()):
                self._list(gather_key, seq)
        self._order[prefix].append(key)

    # -- runs that are retried

    def failed_ends(self) -> list[StepRecord]:
        """The failed steps with which the code ended, or a branch of it: a retry of the run takes them up again.

        Not one with something recorded behind it, since the code has gone on from its failure; not one that may run
        only once; and not a call whose child was cancelled, which is for good.
        """
        found = [self._last[key] for key in self._ends("")]
        return [record for record in found if record.status == "failed" and self._may_reopen(record)]

    def _ends(self, prefix: str) -> Iterator[str]:
        """The last step of a scope, or those of the branches of its last gather."""
        order = self._order.get(prefix)
        if not order:
            return
        key = order[-1]
        if key in self._last:
            yield key
            return
        for branch in self._order:
            if branch.startswith(f"{key}[") and branch.count("/", len(key)) == 1:
                yield from self._ends(branch)

    def _may_reopen(self, record: StepRecord) -> bool:
        if record.kind == "invoke":
            return (record.error or {}).get("type") not in ("StepTimeoutError", "RunCancelledError")
        return record.kind == "step" and record.key not in self._begun

    def _reopen(self, failed: StepRecord, resumed: StepRecord) -> None:
        """Let a failed step be one that has begun: with a fresh set of attempts, or a fresh timeout."""
        key = failed.key
        self._earlier[key] = max(self._earlier.get(key, 0) + self._failures.pop(key, 0) + 1, failed.attempt)
        begun = self._begun.get(key)
        if begun is None:
            self._last[key] = replace(failed, status="retrying", error=None)
        else:
            due = None if begun.due is None else resumed.at + begun.due - begun.at
            self._last[key] = self._begun[key] = replace(begun, due=due, at=resumed.at)

    # -- what was recorded of a step

    def last(self, key: str) -> StepRecord | None:
        """The newest record of a step, wherever the code is."""
        return self._last.get(key)

    def may_begin_with(self, key: str) -> bool:
        """Whether the first step of the code is this one, or none is recorded."""
        return not self._order[""] or self._order[""][0] == key

    def failures(self, key: str) -> int:
        """How many attempts of a step failed and were to be retried; since its run was retried, if it was."""
        return self._failures.get(key, 0)

    def all_failures(self, key: str) -> int:
        """How many attempts of a step failed, before its run was retried and since."""
        return self._earlier.get(key, 0) + self._failures.get(key, 0)

    def exhausted(self, scope: Scope) -> bool:
        """Whether this scope has nothing left to replay."""
        return scope.position >= len(self._order.get(scope.prefix, ()))

    def replaying(self, scope: Scope) -> bool:
        """Whether code of this scope was here before: it, or the code behind its gather, has recorded steps left."""
        around: Scope | None = scope
        while around is not None:
            if not self.exhausted(around):
                return True
            around = around.parent
        return False

    def take(self, scope: Scope, key: str, kind: Kind, input: str) -> StepRecord | None:
        """The last record of the step the code asks for now, or ``None`` if it is new.

        Raises:
            NonDeterminismError: If the run recorded something else at this place.
        """
        for prefix, error in self._barred.items():
            if scope.prefix.startswith(prefix):
                raise error
        order = self._order.get(scope.prefix)
        if order is None or scope.position >= len(order):
            return None
        expected = order[scope.position]
        if expected != key:
            raise NonDeterminismError(step=expected, recorded=self._describe(expected), asked=f"{kind} {key!r}")
        record = self._last[key]
        if record.kind != kind:
            raise NonDeterminismError(step=key, recorded=self._describe(key), asked=f"{kind} {key!r}")
        if record.input != input and not self._same_input(record, input):
            raise NonDeterminismError(
                step=key, recorded=f"the input {record.input or 'nothing'}", asked=f"the input {input or 'nothing'}"
            )
        scope.position += 1
        if record.final:
            scope.window = max(scope.window, record.seq + 1)
        return record

    def _same_input(self, record: StepRecord, asked: str) -> bool:
        if same_input(record.input, asked):
            return True
        if self._alias is None:
            return False
        # What a fork took over was made from the id of the run that it comes from.
        return same_input(record.input, asked.replace(*self._alias))

    def patched(self, scope: Scope, patch_id: str, decide: Callable[[bool], StepRecord]) -> bool:
        """Whether the code of a scope goes by a patch.

        Args:
            scope: Where the code stands.
            patch_id: The patch.
            decide: Makes the record of the answer, where there is none yet.
        """
        ahead = self._ahead(scope)
        marker = self._patches.get(patch_id)
        if marker is None:
            marker = self._patches[patch_id] = decide(ahead is None)
        # A branch that was past its place before another one brought the patch has recorded steps of the old code.
        return bool(marker.value) and (ahead is None or ahead > marker.seq)

    def _ahead(self, scope: Scope) -> int | None:
        """The place of the first record behind the code of a scope, or ``None`` if it was never further than now."""
        around: Scope | None = scope
        while around is not None:
            order = self._order.get(around.prefix, ())
            if around.position < len(order):
                return self._first[order[around.position]]
            around = around.parent
        return None

    def take_gather(self, scope: Scope, key: str, branches: int) -> None:
        """Check a ``gather`` against what was recorded of its branches.

        Raises:
            NonDeterminismError: If the run recorded something else here, or more branches.
        """
        order = self._order.get(scope.prefix)
        if order is None or scope.position >= len(order):
            return
        expected = order[scope.position]
        if expected != key:
            error = NonDeterminismError(step=expected, recorded=self._describe(expected), asked=f"gather {key!r}")
            if any(prefix.startswith(f"{key}[") for prefix in self._order):
                raise error
            self._barred[f"{key}["] = error  # right if its branches hold no steps, which leave no records
            return
        scope.position += 1
        for prefix in self._order:
            if prefix.startswith(f"{key}[") and int(prefix[len(key) + 1 :].partition("]")[0]) >= branches:
                raise NonDeterminismError(
                    step=self._order[prefix][0], recorded=f"the branch {prefix!r}", asked=f"{branches} branches"
                )

    def check_end(self, scope: Scope) -> None:
        """Check that the code did not end, or a branch of it, with recorded steps left over.

        Raises:
            NonDeterminismError: If it did.
        """
        if not self.exhausted(scope):
            left = self._order[scope.prefix][scope.position]
            raise NonDeterminismError(step=left, recorded=self._describe(left), asked="the end, without this step")

    def _describe(self, key: str) -> str:
        record = self._last.get(key)
        return f"gather {key!r}" if record is None else f"{record.kind} {key!r}"


def settle(record: StepRecord, codec: Codec) -> Any:
    """What a final record gives its caller: the value, or the error raised anew.

    Raises:
        NonDeterminismError: If the code now takes values of another shape than were recorded.
    """
    if record.error is not None:
        raise error_from_json(record.error)
    return None if record.output is None else read_output(record.output, codec, step=record.key)


def read_output(text: str, codec: Codec, *, step: str) -> Any:
    """The value of a step that was recorded. It could be read by the code that recorded it.

    Raises:
        NonDeterminismError: If it cannot be any more.
    """
    try:
        return codec.decode(text, step=step)
    except SerializationError as error:
        shown = text if len(text) <= INPUT_TEXT_LIMIT else f"{text[:INPUT_TEXT_LIMIT]}…"
        raise NonDeterminismError(
            step=step, recorded=f"the value {shown}", asked=f"another shape ({error.message})"
        ) from error


class RecordedEngine(StepEngine):
    """Steps that are only read back. Used to derive things from a history without storing them twice.

    Args:
        records: A run's records.
    """

    def __init__(self, records: Iterable[StepRecord]) -> None:
        self.recorded = Recorded(records)

    def take(self, scope: Scope, key: str, kind: Kind, input: str, codec: Codec) -> Any:
        """What a step came to.

        Raises:
            NonDeterminismError: If the run recorded something else, or nothing final, at this place.
        """
        record = self.recorded.take(scope, key, kind, input)
        if record is None or not record.final:
            raise NonDeterminismError(step=key, recorded="nothing", asked=f"{kind} {key!r}")
        return settle(record, codec)

    async def run(self, scope: Scope, call: StepCall) -> Any:
        return self.take(scope, call.key, "step", encode_input(call.args, step=call.key), call.codec)

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        return self.take(scope, key, "invoke", invoke_input(key, function, data), function.output)

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        ids: list[str] = self.take(scope, key, "send_event", encode_input(events, step=key), EVENT_IDS)
        return ids

    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        self.take(scope, key, "sleep", encode_input((duration, until), step=key), NOTHING)

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        event: Event | None = self.take(
            scope, key, "wait_for_event", encode_input((name, match, timeout), step=key), MAYBE_EVENT
        )
        return event

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self.recorded.take_gather(scope, key, len(branches))
        return [await branch() for branch in branches]

    def patched(self, scope: Scope, patch_id: str) -> bool:
        return self.recorded.patched(scope, patch_id, lambda answer: patch_record("", 0, patch_id, answer, 0.0))

    def is_replaying(self, scope: Scope) -> bool:
        return self.recorded.replaying(scope)

    def records_input(self) -> bool:
        return self.recorded.may_begin_with(INPUT_STEP)

    def check_end(self, scope: Scope) -> None:
        self.recorded.check_end(scope)


class RecordedSteps(KeyedSteps):
    """The steps of a history: each is answered from it, and nothing is run.

    Args:
        records: A run's records.
    """

    def __init__(self, records: Iterable[StepRecord]) -> None:
        super().__init__(RecordedEngine(records))


def patch_record(run_id: str, seq: int, patch_id: str, answer: bool, at: float) -> StepRecord:
    """The record of what `patched` answered a run."""
    output = "true" if answer else "false"
    return StepRecord(run_id, seq, "", "patch", "completed", name=patch_id, output=output, at=at)


EVENT_IDS = codec_for(list[str])
MAYBE_EVENT = codec_for(Event | None)
NOTHING = codec_for(None)


def invoke_input(key: str, function: FunctionRef[Any, Any], data: Any) -> str:
    """What an ``invoke`` records of its arguments."""
    return f"{function.id},{encode_input((data,), step=key)}"
