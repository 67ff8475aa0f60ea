"""One run in memory: what is read from its records, what is added to them, and how it waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

from durably.backends.replay.host import Host
from durably.backends.replay.journal import NewRun, RunRow
from durably.core import DurablyError, Event, Function, NonDeterminismError
from durably.core.attempts import pass_point
from durably.core.backend import RunStatus
from durably.core.errors import CancelSignal, JournalError, Signal, StaleRunError, SuspendSignal, error_to_json
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.replay import NOTHING, Recorded, settle
from durably.core.serialization import encode_input
from durably.core.step_keys import KeyedSteps, Scope, _scope
from durably.core.steps import Point

__all__ = ["Recorder"]

logger = logging.getLogger("durably")

FIRST_DELAY, LAST_DELAY = 0.1, 3.2
"""Seconds between tries to write a record that the journal refused; they double, up to the second."""

T = TypeVar("T")


class Recorder(KeyedSteps):
    """One pass of a run's code, as far as records and waiting go; what each step does with them is left open.

    Args:
        host: The engine.
        function: The code.
        row: The run.
        records: What it recorded so far.
    """

    def __init__(self, host: Host, function: Function[Any, Any], row: RunRow, records: Sequence[StepRecord]) -> None:
        super().__init__()
        self.row = row
        self.function = function
        self.signal: type[Signal] | None = None
        self.stale = False
        self._host = host
        self._recorded = Recorded(records)
        self._seq = len(records)
        self._parked: set[asyncio.Future[Any]] = set()
        self._registering = 0
        self._behind: list[asyncio.Future[Any]] = []

    @property
    def replaying(self) -> bool:
        """Whether the code that asks is still among its recorded steps."""
        return not self._recorded.exhausted(_scope.get() or self._root)

    @property
    def refusal(self) -> DurablyError | None:
        """Why the code may not go on: it does not match the records, or ran two steps of one branch at once."""
        return self._broken

    def check_end(self) -> None:
        """Refuse an end of the code that leaves recorded steps over, or that swallowed a refusal."""
        if self._broken is not None:
            raise self._broken
        self._recorded.check_end(self._root)

    def interrupt(self, signal: type[Signal]) -> None:
        """Unwind the code at its next step boundary."""
        self.signal = signal
        for future in list(self._parked):
            self._host.wake(future, None)

    async def finish(
        self,
        status: Literal["completed", "failed"],
        started: float,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
        runs: Sequence[NewRun] = (),
    ) -> None:
        """Record how the run ended."""
        record = self._record("", "run", status, name=self.function.id, output=output, error=error, started=started)
        await self._append(self._root, record, runs, status=RunStatus(status))

    async def retry_run(self, attempt: int, error: dict[str, Any], due: float) -> None:
        """Record that the code itself failed and runs again at a moment."""
        record = self._record("", "run", "retrying", name=self.function.id, attempt=attempt, error=error, due=due)
        await self._append(self._root, record)

    # -- records

    def _asked(self, args: Sequence[Any], key: str) -> str:
        text: str = self._host.redactor.text(encode_input(args, step=key))
        return text

    def _branch_ended(self, scope: Scope) -> None:
        self._guard(lambda: self._recorded.check_end(scope))

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        try:
            record = self._recorded.take(scope, key, kind, asked)
        except NonDeterminismError as error:
            self._broken = error
            raise
        if record is not None and self._host.probe is not None:
            await self._pass("replay", key)
        if record is None or not record.final:
            self._check()
            if scope.prefix:
                await self._give_way(kind, key)
        return record

    async def _give_way(self, kind: Kind, key: str) -> None:
        """In a branch, let the others go first as often as the seed says.

        All let a wait go first: what stands beside it may ask for its event, which must not come before the wait.
        """
        if kind == "wait_for_event":
            return
        for _ in range(1 + self._host.turns(key)):
            await asyncio.sleep(0)
        while self._registering:
            self._behind.append(asyncio.get_running_loop().create_future())
            await self._park(self._behind[-1], None)

    @contextmanager
    def _registration(self) -> Iterator[None]:
        """While a wait is being registered, the steps of other branches stay behind."""
        self._registering += 1
        try:
            yield
        finally:
            self._registering -= 1
            while self._behind and not self._registering:
                self._host.wake(self._behind.pop(), None)

    def _guard(self, look: Callable[[], T]) -> T:
        try:
            return look()
        except NonDeterminismError as error:
            self._broken = error
            raise

    def _record(
        self, key: str, kind: Kind, status: RecordStatus, *, started: float | None = None, **fields: Any
    ) -> StepRecord:
        now = self._host.clock.now()
        took = 0.0 if started is None else max(0.0, now - started)
        return StepRecord(self.row.id, self._seq, key, kind, status, at=round(now, 3), took=took, **fields)

    async def _commit(
        self,
        scope: Scope,
        key: str,
        kind: Kind,
        status: RecordStatus,
        *,
        error: Exception | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        **fields: Any,
    ) -> StepRecord:
        if error is not None:
            fields["error"] = self._host.redactor.data(error_to_json(error))
        record = self._record(key, kind, status, **fields)
        return await self._append(scope, record, runs, events)

    async def _append(
        self,
        scope: Scope,
        record: StepRecord,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
        status: RunStatus | None = None,
    ) -> StepRecord:
        delay = FIRST_DELAY
        while self.signal is not CancelSignal:  # a run that is only suspended still records what its bodies did
            try:
                self._host.commit(record, self.row.fence, status=status, runs=runs, events=events, cancel=cancel)
                break
            except StaleRunError as error:
                logger.warning("%s; this worker drops the run", error)
                self.stale = True
                self.interrupt(self.signal or SuspendSignal)
                raise (self.signal or SuspendSignal) from error
            except JournalError as error:
                # What the body did is in hand here and nowhere else: it waits, rather than have the body run again.
                if delay == FIRST_DELAY:
                    logger.warning("%r of run %s waits to be recorded: %s", record.key or "run", self.row.id, error)
                await self._rest(self._host.clock.now() + delay)
                record = replace(record, seq=self._seq)  # another branch may have written meanwhile
                delay = min(2 * delay, LAST_DELAY)
        else:
            raise CancelSignal
        self._seq += 1
        if record.status == "retrying" and record.key:
            self._recorded.add_failure(record.key)
        if record.final:
            scope.window = self._seq
        return record

    async def _settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        await self._commit(scope, key, kind, "completed", input=asked, output=output, **fields)
        if self._host.probe is not None:
            if kind == "send_event":
                await self._pass("after_send", key)
            await self._pass("after_commit", key)
        if self._host.evict:
            self.interrupt(SuspendSignal)
        self._check()

    async def _fail(self, scope: Scope, record: StepRecord, error: Exception, cancel: str | None = None) -> Any:
        """Record a step's final error and raise it, as every replay will."""
        record = self._record(
            record.key,
            record.kind,
            "failed",
            attempt=record.attempt,
            input=record.input,
            name=record.name,
            error=self._host.redactor.data(error_to_json(error)),
            started=record.at - record.took,
        )
        await self._append(scope, record, cancel=cancel)
        await self._pass("after_commit", record.key)
        if self._host.evict:
            self.interrupt(SuspendSignal)
        self._check()
        return settle(record, NOTHING)

    def _attempt(self, scope: Scope, key: str) -> int:
        """The number of the next execution: one more than the failures and the crashes that may have cut one off."""
        crashes = len([count for count in self.row.crashes if count >= scope.window])
        return 1 + self._recorded.failures(key) + crashes

    # -- waiting

    async def _sleep_until(self, due: float) -> None:
        while self._host.clock.now() < due:
            await self._park(asyncio.get_running_loop().create_future(), due)

    async def _rest(self, due: float) -> None:
        """Let time pass, whatever the run is asked to do meanwhile."""
        await self._wait(asyncio.get_running_loop().create_future(), due)

    async def _park(self, future: asyncio.Future[T], due: float | None) -> T | None:
        """Wait for a future or a moment, whichever comes first; a signal for the run ends it."""
        value = await self._wait(future, due)
        self._check()
        return value

    async def _wait(self, future: asyncio.Future[T], due: float | None) -> T | None:
        self._parked.add(future)
        try:
            return await self._host.wait(future, due)
        finally:
            self._parked.discard(future)

    def _check(self) -> None:
        if self.signal is not None:
            raise self.signal

    async def _pass(self, name: str, key: str) -> None:
        if self._host.probe is not None:
            await pass_point(self._host.probe, Point(name, self.function.id, self.row.id, key))
            self._check()
