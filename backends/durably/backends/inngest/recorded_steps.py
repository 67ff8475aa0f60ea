"""Steps whose every outcome Inngest keeps as a record of ours, and what is known from those records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from durably.backends.inngest.host import Host
from durably.backends.inngest.records import read_memo, write_memo
from durably.backends.inngest.sdk import Request, ResponseInterrupt, SkipInterrupt
from durably.core import DurablyError, Function, NonDeterminismError
from durably.core.attempts import pass_point
from durably.core.errors import PayloadTooLargeError, error_to_json
from durably.core.history import Kind, StepRecord
from durably.core.replay import Recorded
from durably.core.serialization import encode_input
from durably.core.step_keys import KeyedSteps, Scope, _scope
from durably.core.steps import Point

__all__ = ["KeptSteps", "give"]

T = TypeVar("T")
Hold = Callable[[Request, ResponseInterrupt], Awaitable[Request]]

STATE_LIMIT = 31 * 2**20
"""Bytes of all steps of a run, a little below where Inngest ends it."""


class KeptSteps(KeyedSteps):
    """One request's pass of a run's code over its records.

    Args:
        host: The worker.
        function: The code.
        run_id: The run.
        request: What Inngest asks.
        records: What the run recorded so far.
        line: The runs that wait for this one, itself last.
        known: How many of the records this worker has seen before.
        hold: Ends a request with an answer and waits for the next, or ``None`` where that is not done.
    """

    def __init__(
        self,
        host: Host,
        function: Function[Any, Any],
        run_id: str,
        request: Request,
        records: Sequence[StepRecord],
        line: tuple[str, ...],
        known: int,
        hold: Hold | None,
    ) -> None:
        super().__init__()
        self._host = host
        self._function = function
        self._run_id = run_id
        self._request = request
        self._recorded = Recorded(records)
        self._line = line
        self._known = known
        self._hold = hold
        self._numbers: dict[str, int] = {}
        self._executions: dict[str, int] = {}
        self._sent: list[str] = []
        self._apart: set[str] = set()
        for record in records:
            self._count(record)
        self._fanned_out = False
        self._answers: dict[str, BaseException] = {}

    def _count(self, record: StepRecord) -> None:
        self._numbers[record.key] = self._numbers.get(record.key, 0) + 1
        if record.kind == "step":
            self._executions[record.key] = record.attempt
        elif record.kind == "send_event":
            self._sent += record.value or ()
        elif record.kind in ("sleep", "invoke", "wait_for_event"):
            self._goes_alone(record.key)

    @property
    def replaying(self) -> bool:
        """Whether the code that asks was here before: among its records, or on the way to the one step to run."""
        return self._request.target is not None or not self._recorded.exhausted(_scope.get() or self._root)

    @property
    def refusal(self) -> DurablyError | None:
        """Why the code may not go on: it does not match the records, or ran two steps of one branch at once."""
        return self._broken

    def check_end(self) -> None:
        """Refuse an end of the code that leaves recorded steps over, or that swallowed a refusal."""
        if self._broken is not None:
            raise self._broken
        self._recorded.check_end(self._root)

    async def retry_run(self, failures: int, error: dict[str, Any], due: float) -> None:
        """Keep that the code itself failed and runs again at a moment."""
        record = self._record("", "run", "retrying", name=self._function.id, attempt=failures, error=error, due=due)
        self._hold = None  # the code has ended: it begins anew with the next request
        await self._keep("run~retry", record, number=failures)

    def _enter(self, step_id: str) -> Scope:
        scope = super()._enter(step_id)
        if scope.prefix in self._answers:
            raise self._answers[scope.prefix]  # it is being unwound; what its `finally` does comes with another request
        return scope

    async def ask(self, question: Callable[[Request], Awaitable[T]]) -> T:
        """Put something to Inngest. What is new there ends the request, and the code with it if it cannot be held."""
        while True:
            try:
                return await question(self._request)
            except (ResponseInterrupt, SkipInterrupt) as answer:
                await self._go_on(_scope.get() or self._root, answer)

    async def _go_on(self, scope: Scope, answer: ResponseInterrupt | SkipInterrupt) -> None:
        # Branches are discovered by running them to their next step and unwinding them: only the root can be held.
        alone = scope is self._root and not self._fanned_out and self._request.target is None
        try:
            if self._hold is None or not alone or isinstance(answer, SkipInterrupt):
                raise answer
            self._request = await self._hold(self._request, answer)
        except BaseException:
            self._answers[scope.prefix] = answer
            raise

    def _goes_alone(self, key: str) -> None:
        """A branch that waits would hold up the others: let each branch of its gathers go on by itself."""
        self._apart.update(key[:place] for place, letter in enumerate(key) if letter == "[")

    async def _step(self, key: str, make: Callable[[], Awaitable[StepRecord]], number: int | None = None) -> StepRecord:
        """Let Inngest run and keep something: the record of it, with the request that brings it."""
        number = self._numbers.get(key, 0) if number is None else number
        step_id = f"{key}~{number}" if number else key

        async def run() -> dict[str, Any]:
            record = await make()
            return write_memo(record)

        await asyncio.sleep(0)  # lets steps that were started at the same time, not by gather, be seen and refused
        if self._broken is not None:
            raise self._broken
        memo = await self._planned(step_id, run)
        kept = read_memo(memo, self._run_id, sum(self._numbers.values()))
        if kept is None:
            raise NonDeterminismError(step=key, recorded="something that is not a record", asked=f"step {key!r}")
        self._count(kept)
        if kept.status == "retrying":
            self._recorded.add_failure(key)
        await self._pass("after_commit", key)
        return kept

    async def _planned(self, step_id: str, run: Callable[[], Awaitable[dict[str, Any]]]) -> Any:
        if not self._fanned_out:
            return await self.ask(lambda request: request.step.run(step_id, run))

        # Two answers may have come to this place at the same time; a planned step is run once all the same.
        async def planned(request: Request) -> Any:
            (memo,) = await request.group.parallel((lambda: request.step.run(step_id, run),))
            return memo

        return await self.ask(planned)

    async def _keep(self, key: str, record: StepRecord, number: int | None = None) -> StepRecord:
        return await self._step(key, give(record), number)

    def _record(self, key: str, kind: Kind, status: Any, *, started: float | None = None, **fields: Any) -> StepRecord:
        now = self._host.now()
        took = 0.0 if started is None else round(max(0.0, now - started), 3)
        return StepRecord(self._run_id, 0, key, kind, status, at=round(now, 3), took=took, **fields)

    def _failure(
        self, key: str, asked: str, error: Exception, started: float, *, kind: Kind = "step", **fields: Any
    ) -> StepRecord:
        data = self._host.redactor.data(error_to_json(error))
        return self._record(key, kind, "failed", input=asked, error=data, started=started, **fields)

    def _check_state(self, key: str, output: str) -> None:
        if self._request.large and (size := self._request.size() + len(output)) > STATE_LIMIT:
            raise PayloadTooLargeError(step=key, size=size, limit=STATE_LIMIT)

    def _asked(self, args: Sequence[Any], key: str) -> str:
        text: str = self._host.redactor.text(encode_input(args, step=key))
        return text

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record: StepRecord | None = self._guard(lambda: self._recorded.take(scope, key, kind, asked))
        if record is not None:
            self._fanned_out = False
            if self._host.probe is not None:
                await self._pass("after_commit" if record.seq >= self._known else "replay", key)
        return record

    def _branch_ended(self, scope: Scope) -> None:
        self._guard(lambda: self._recorded.check_end(scope))

    def _guard(self, look: Callable[[], Any]) -> Any:
        try:
            return look()
        except NonDeterminismError as error:
            self._broken = error
            raise

    async def _pass(self, name: str, key: str) -> None:
        if self._host.probe is not None:
            await pass_point(self._host.probe, Point(name, self._function.id, self._run_id, key))

    async def _begins(self, key: str) -> None:
        # In a branch a step is met in many requests, and begins in the one that is for it.
        if _scope.get() is None or self._request.is_target(key):
            await self._pass("before_start", key)

    def _beat(self, key: str) -> Callable[[], None] | None:
        return None


def give(record: StepRecord) -> Callable[[], Awaitable[StepRecord]]:
    """A body of an Inngest step that gives a record which is there already."""

    async def made() -> StepRecord:
        return record

    return made
