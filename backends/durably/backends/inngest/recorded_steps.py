"""Steps that Inngest runs and keeps: planned there with a body that gives a record, which is read back.

Owns the ids of steps on Inngest, and what is counted from a run's records. Does not own what a step does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from durably.backends.inngest.host import InngestHost
from durably.backends.inngest.records import decode_patches, decode_record, encode_record
from durably.backends.inngest.sdk import Request, ResponseInterrupt, SkipInterrupt, race
from durably.backends.inngest.suspended_code import SuspendableCode
from durably.core import NonDeterminismError
from durably.core.cause import Cause
from durably.core.errors import SuspendSignal, TooManyStepsError, error_to_json
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.replay import Recorded, patch_record
from durably.core.step_keys import Branch, Scope

__all__ = ["StepRecorder", "given"]

T = TypeVar("T")

_RETRY = "run~retry"
"""The key under which Inngest keeps that the code itself has failed."""

MOST_STEPS = 999
"""Inngest calls no run any more that has 1,000 steps: it fails, whatever is left to do. See ``checkStepLimit`` in its
executor, and https://www.inngest.com/docs/usage-limits/inngest."""

LONGEST_SLEEP = 364 * 86400.0
"""Seconds: Inngest sleeps for up to a year."""


class StepRecorder:
    """Has steps run and kept by Inngest, during one pass of a run's code.

    Args:
        host: The worker.
        function: The id of its function.
        run_id: The run.
        cause: What began it.
        code: Puts steps to Inngest.
        records: What the run recorded so far.

    Attributes:
        recorded: What the code is compared with.
        sent: The ids of the events that the run has sent.
    """

    def __init__(
        self,
        host: InngestHost,
        function: str,
        run_id: str,
        cause: Cause,
        code: SuspendableCode,
        records: Sequence[StepRecord],
    ) -> None:
        self.recorded = Recorded(records)
        self.sent: list[str] = []
        self._host = host
        self._function = function
        self._run_id = run_id
        self._cause = cause
        self._code = code
        self._count = 0
        self._decided: dict[str, bool] = {}
        self._numbers: dict[str, int] = {}
        self._executions: dict[str, int] = {}
        # The gathers whose branches go on alone, and whether the code is behind one of them with nothing ended since.
        self._racing: set[str] = set()
        self._behind_race = False
        for record in records:
            self._add(record)

    def _add(self, record: StepRecord) -> None:
        key = record.key
        self._count += 1
        self._numbers[key] = self._numbers.get(key, 0) + 1
        if record.kind == "step":
            self._executions[key] = record.attempt
        elif record.kind == "send_event":
            self.sent += record.value or ()
        elif record.kind not in ("run", "patch"):
            self.race_gathers_of(key)

    def number(self, key: str) -> int:
        """How many records a step has."""
        return self._numbers.get(key, 0)

    def executions(self, key: str) -> int:
        """The number of the last execution of a body that was recorded, or 0."""
        return self._executions.get(key, 0)

    # -- records

    def record(
        self, key: str, kind: Kind, status: RecordStatus, *, started: float | None = None, **fields: Any
    ) -> StepRecord:
        """A record that is not kept yet.

        Args:
            key: The step key.
            kind: What is recorded.
            status: See :class:`~durably.core.history.StepRecord`.
            started: When the step, or this attempt, began; seconds since 1970.
            fields: Further fields of the record.
        """
        now = self._host.now()
        took = 0.0 if started is None else round(max(0.0, now - started), 3)
        return StepRecord(self._run_id, 0, key, kind, status, at=round(now, 3), took=took, **fields)

    def failed(self, key: str, kind: Kind, error: Exception, **fields: Any) -> StepRecord:
        """A record of a final error that is not kept yet; for the fields see :meth:`record`."""
        data = error_to_json(error, self._host.environment.redactor.text)
        return self.record(key, kind, "failed", error=data, **fields)

    def patched(self, scope: Scope, patch_id: str) -> bool:
        """Whether the code of a scope goes by a patch; what is decided now travels with the next record."""
        return self.recorded.patched(scope, patch_id, lambda answer: self._decide(patch_id, answer))

    def _decide(self, patch_id: str, answer: bool) -> StepRecord:
        self._decided[patch_id] = answer
        return patch_record(self._run_id, self._count, patch_id, answer, round(self._host.now(), 3))

    async def retry_run(self, scope: Scope, record: StepRecord) -> None:
        """Have Inngest keep that the code itself failed and runs again. Ends the pass."""
        # Not suspended: the code has ended, and begins anew with the next request.
        await self.commit(scope, _RETRY, given(record), number=record.attempt, suspends=False)

    def is_for_retry(self, failures: int) -> bool:
        """Whether the request is there to keep that the code has failed so often: behind a race that is planned."""
        return self._code.request.is_target(_step_id(_RETRY, failures))

    # -- steps on Inngest

    @property
    def has_room(self) -> bool:
        """Whether Inngest takes one more step of this run."""
        return len(self._code.request.settled) + self._code.planned < MOST_STEPS

    async def commit(
        self,
        scope: Scope,
        key: str,
        body: Callable[[], Awaitable[StepRecord]],
        *,
        number: int | None = None,
        suspends: bool = True,
    ) -> StepRecord:
        """Have Inngest run something and keep the record it gives.

        Args:
            scope: Where the code stands.
            key: The step key.
            body: Gives the record. It runs in the request that is for this step, once.
            number: Tells steps of one key apart on Inngest; left out, how many records the key has.
            suspends: Whether the code may be suspended until the next request.

        Returns:
            The record, as the next request brings it.

        Raises:
            SuspendSignal: If the code is to be unwound, since the request has its answer.
        """
        number = self.number(key) if number is None else number
        step_id = _step_id(key, number)

        observers = self._host.environment.observers

        async def run() -> dict[str, Any]:
            record = await body()
            # Told where it is made: which worker gets the next request, nobody knows.
            if observers.steps or record.status != "completed":
                observers.tell_of(record, self._function, self._cause)
            return encode_record(record, self._decided)

        if not self._code.request.skips(step_id):
            await asyncio.sleep(0)  # lets steps that were started at the same time, not by gather, be seen and refused
        if scope.root.refusal is not None:
            raise scope.root.refusal
        output = await self._plan(scope, step_id, run, suspends)
        for patch in decode_patches(output, self._run_id, self._count):
            self._count += 1
            self._decided.pop(patch.name, None)
        kept = decode_record(output, self._run_id, self._count)
        if kept is None:
            raise NonDeterminismError(step=key, recorded="something that is not a record", asked=f"step {key!r}")
        self._add(kept)
        if kept.status == "retrying":
            self.recorded.add_failure(key)
        return kept

    async def _plan(
        self, scope: Scope, step_id: str, run: Callable[[], Awaitable[dict[str, Any]]], suspends: bool
    ) -> Any:
        if not self._behind_race:
            return await self.ask(scope, step_id, lambda request: request.step.run(step_id, run), suspends=suspends)

        # Each branch that raced may have brought a request to this place. Inngest runs a step once if several requests
        # plan it; run in the requests themselves, as a step that stands alone is, it would run as often as they came.
        async def planned(request: Request) -> Any:
            (output,) = await request.group.parallel((lambda: request.step.run(step_id, run),))
            return output

        return await self.ask(scope, step_id, planned)

    async def ask(
        self, scope: Scope, step_id: str, question: Callable[[Request], Awaitable[T]], *, suspends: bool = True
    ) -> T:
        """Put a step to Inngest. See :meth:`SuspendableCode.ask`."""

        async def asked(request: Request) -> T:
            if request.is_new(step_id):
                if request.target is not None:  # the SDK would skip it, too, but makes many objects for it before
                    raise SkipInterrupt(step_id)
                self._count_new(scope, step_id)
            return await question(request)

        # Behind a race two requests of one run may be under way at once, and only one code of a run can be suspended.
        return await self._code.ask(scope, asked, suspends=suspends and not self._behind_race)

    def _count_new(self, scope: Scope, step_id: str) -> None:
        """Refuse a step that is more than Inngest takes: it fails such a run, and tells it nothing."""
        if not self.has_room:
            what = "steps on Inngest in one run (an invoke, a sleep, a wait and a retry are several)"
            step = step_id.partition("~")[0]
            # Noted as well as raised: the code may not go on, nor may a branch beside it begin.
            scope.root.refusal = TooManyStepsError(step=step, what=what, count=MOST_STEPS + 1, limit=MOST_STEPS)
            raise scope.root.refusal
        self._code.planned += 1

    async def sleep_until(self, scope: Scope, step_id: str, due: float) -> None:
        """Sleep on Inngest until a moment, in seconds since 1970."""
        number = 0
        self.race_gathers_of(step_id)
        # Inngest rounds what is left to whole seconds, and so may end a sleep half a second early; and it sleeps for a
        # year at most.
        while self._host.now() < due:
            await self._sleep_once(scope, f"{step_id}{number}", due)
            number += 1

    async def _sleep_once(self, scope: Scope, step_id: str, due: float) -> None:
        moment = datetime.fromtimestamp(min(due, self._host.now() + LONGEST_SLEEP), UTC)
        await self.ask(scope, step_id, lambda request: request.step.sleep_until(step_id, moment))

    # -- branches

    def race_gathers_of(self, key: str) -> None:
        """Let each branch of the gathers around a step go on by itself, since this one waits and would hold them up."""
        self._racing.update(key[:place] for place, letter in enumerate(key) if letter == "[")

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        """Have Inngest run the next steps of all branches; what they came to, once none has a step left.

        The SDK goes through the branches one after another, each up to its next step. A branch that is not among the
        outcomes had a step that Inngest did not ask for.
        """

        async def question(request: Request) -> tuple[Any, ...]:
            try:
                outcomes = await request.group.parallel(
                    tuple(partial(self._outcome, f"{key}[{index}]/", branch) for index, branch in enumerate(branches))
                )
            except ResponseInterrupt as interrupt:
                if scope.root.refusal is not None:
                    raise scope.root.refusal from None  # in a branch: none of the others begins
                if key in self._racing:
                    race(interrupt)
                raise
            if scope.prefix and len(outcomes) < len(branches):
                raise SkipInterrupt(key)  # the step that Inngest asks for stands in a branch beside this gather
            return outcomes

        outcomes = await self._code.ask(scope, question, suspends=False)
        # Once a step behind the gather has ended, whatever raced to that place is past it.
        self._behind_race = key in self._racing and self.recorded.exhausted(scope)
        return list(outcomes)

    async def _outcome(self, prefix: str, branch: Branch) -> Any:
        if self._code.answered:
            raise SkipInterrupt(prefix)  # a branch before this one had the step to run
        outcome: Any = None
        try:
            outcome = await branch()
        except SuspendSignal:
            if prefix not in self._code.interrupts:
                raise
        if prefix in self._code.interrupts:
            raise self._code.interrupts[prefix]  # the SDK collects these: each is a step that a branch has come to
        return outcome


def _step_id(key: str, number: int) -> str:
    """The id on Inngest of one of the records of a step."""
    return f"{key}~{number}" if number else key


def given(record: StepRecord) -> Callable[[], Awaitable[StepRecord]]:
    """A body that gives a record which is there already."""

    async def body() -> StepRecord:
        return record

    return body
