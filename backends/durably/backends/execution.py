"""One run in memory: its steps, answered from the records where they can be and run where they must be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NoReturn, Protocol, TypeVar

from durably.backends.clock import Clock
from durably.backends.journal import Journal, NewRun, RunRow
from durably.core import (
    DefinitionError,
    DurablyError,
    Event,
    Function,
    FunctionRef,
    JournalError,
    NonDeterminismError,
    SerializationError,
    Singleton,
    StaleRunError,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
)
from durably.core.backend import RunStatus, RunView, encode_data, invoke_error
from durably.core.body import Body, pass_point, run_body
from durably.core.errors import CancelSignal, Signal, SuspendSignal, error_to_json, is_retriable
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.ids import derive_id
from durably.core.keys import Branch, KeyedSteps, Scope, _scope
from durably.core.replay import EVENT_IDS, MAYBE_EVENT, NOTHING, Recorded, invoke_input, settle
from durably.core.secrets import Redactor
from durably.core.serialization import Codec, encode_input
from durably.core.steps import Point, Probe, StepInfo

__all__ = ["Execution", "Host", "Waiting"]

logger = logging.getLogger("durably")

FIRST_DELAY, LAST_DELAY = 0.1, 3.2
"""Seconds between tries to write a record that the journal refused for the moment; they double."""

T = TypeVar("T")


class Waiting:
    """A run that waits for an event.

    Attributes:
        name: The event's name.
        match: Dotted paths and the values that must be there.
        cursor: Only events after this place in the log count.
        due: Only events received by then count, or ``None``.
        future: Gets the event.
    """

    def __init__(self, name: str, match: dict[str, Any], cursor: int, due: float | None) -> None:
        self.name = name
        self.match = match
        self.cursor = cursor
        self.due = due
        self.future: asyncio.Future[Event | None] = asyncio.get_running_loop().create_future()

    def wants(self, event: Event, seq: int, at: float) -> bool:
        """Whether this is the event it waits for."""
        return (
            event.name == self.name
            and seq > self.cursor
            and (self.due is None or at <= self.due)
            and all(event.at(path) == value for path, value in self.match.items())
        )


class Host(Protocol):
    """What an execution needs of the engine that holds it."""

    clock: Clock
    journal: Journal
    probe: Probe | None
    threads: bool
    evict: bool
    max_payload_bytes: int
    functions: dict[str, Function[Any, Any]]
    resources: Mapping[str, Any]
    redactor: Redactor
    active: int

    def crash(self, signal: BaseException) -> None: ...
    def commit(
        self,
        record: StepRecord,
        fence: int,
        *,
        status: RunStatus | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
    ) -> None: ...
    def wake(self, future: asyncio.Future[Any], value: Any) -> None: ...
    def rest(self) -> None: ...
    def find_event(self, waiting: Waiting) -> Event | None: ...
    def wait_for_event(self, waiting: Waiting) -> None: ...
    def stop_waiting(self, waiting: Waiting) -> None: ...
    def find_run(self, run_id: str) -> RunView | None: ...
    def wait_for_run(self, run_id: str) -> asyncio.Future[Any]: ...
    def singleton_of(self, function: str) -> Singleton | None: ...
    def turns(self, key: str) -> int: ...


class Execution(KeyedSteps):
    """One pass of a run's code over its records.

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
        self.trouble: JournalError | None = None
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

    # -- the steps

    async def _run(self, scope: Scope, body: Body) -> Any:
        key = body.key
        asked = self._asked(body.args, key)
        record = await self._take(scope, key, "step", asked)
        if record is not None:
            if record.final:
                return settle(record, body.codec)
            if record.status == "started":
                await self._fail(scope, record, _interrupted(key))
            elif record.due is not None:
                await self._sleep_until(record.due)
        if self._host.probe is not None:
            await self._pass("before_start", key)
        attempt = 0
        while True:
            attempt = max(attempt + 1, self._attempt(scope, key))
            outcome = await self._attempt_body(scope, body, attempt, asked)
            if outcome is not _RETRY:
                return outcome

    async def _attempt_body(self, scope: Scope, body: Body, attempt: int, asked: str) -> Any:
        """One attempt: its value, its final error raised, or `_RETRY` once the delay is over."""
        host, key = self._host, body.key
        if body.at_most_once:
            await self._commit(scope, key, "step", "started", attempt=attempt, input=asked)
        started = host.clock.now()
        info = StepInfo(self.row.id, key, attempt, host.resources, self._beat(key))
        try:
            value = await run_body(body, info, probe=host.probe, function=self.function.id, threads=host.threads)
            output = host.redactor.text(body.codec.encode(value, step=key, limit=host.max_payload_bytes))
            result = body.codec.decode(output, step=key)
        except Exception as error:
            return await self._failed(scope, body, attempt, asked, started, error)
        await self._settled(scope, key, "step", asked, output, attempt=attempt, started=started)
        return result

    async def _failed(
        self, scope: Scope, body: Body, attempt: int, asked: str, started: float, error: Exception
    ) -> object:
        key = body.key
        failures = self._recorded.failures(key) + 1
        retries = self.function.retries if body.retries is None else body.retries
        timed_out = isinstance(error, StepTimeoutError) and error.step == key
        if failures > retries or body.at_most_once or not (timed_out or is_retriable(error)):
            final = _final_error(key, failures, error)
            record = self._record(key, "step", "failed", attempt=attempt, input=asked, started=started)
            await self._fail(scope, record, final)
        delay = self.function.retry_policy.next_delay(error, failures, derive_id("effect", self.row.id, key))
        due = self._host.clock.now() + delay
        await self._commit(
            scope, key, "step", "retrying", attempt=attempt, input=asked, error=error, due=due, started=started
        )
        await self._pass("backing_off", key)
        if self._host.evict:
            raise SuspendSignal
        await self._sleep_until(due)
        return _RETRY

    async def _invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        if isinstance(function, Function) and self._host.functions.get(function.id) is not function:
            raise DefinitionError(
                f"step {key!r} invokes {function.id!r}, which no one serves: add it to functions=[...]"
            )
        asked = self._host.redactor.text(invoke_input(key, function, data))
        child = derive_id("child", self.row.id, key)
        record = await self._take(scope, key, "invoke", asked)
        if record is not None and record.final:
            return settle(record, function.output)
        if record is None:
            await self._pass("before_start", key)
            event = Event("durably/function.invoked", _plain(encode_data(function, data)), id=child)
            new = NewRun(
                id=child,
                function=function.id,
                event=self._host.redactor.text(event.model_dump_json()),
                parent=self.row.id,
                singleton=self._host.singleton_of(function.id),
            )
            due = None if timeout is None else self._host.clock.now() + timeout
            record = await self._commit(
                scope, key, "invoke", "started", input=asked, name=function.id, output=f'"{child}"', due=due, runs=[new]
            )
            await self._pass("child_started", key)
        view = await self._await_child(child, record.due)
        await self._pass("child_done", key)
        if view is None:
            return await self._fail(scope, record, _invoke_timeout(key, function.id, timeout), cancel=child)
        if view.status is not RunStatus.COMPLETED:
            return await self._fail(scope, record, invoke_error(view, step=key))
        output = view.output or "null"
        await self._settled(scope, key, "invoke", asked, output, name=function.id, started=record.at)
        return function.output.decode(output, step=key)

    async def _await_child(self, child: str, due: float | None) -> RunView | None:
        """The child once it has ended, or ``None`` when the time is up first."""
        while True:
            view = self._host.find_run(child)
            if view is not None and view.status.final:
                return None if due is not None and view.ended_at > due else view
            if due is not None and self._host.clock.now() >= due:
                return None
            await self._park(self._host.wait_for_run(child), due)

    async def _send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        asked = self._asked(events, key)
        record = await self._take(scope, key, "send_event", asked)
        if record is not None:
            ids: list[str] = settle(record, EVENT_IDS)
            return ids
        await self._pass("before_start", key)
        named = [
            event if event.id else event.model_copy(update={"id": derive_id("event", self.row.id, f"{key}#{index}")})
            for index, event in enumerate(events)
        ]
        ids = [event.id or "" for event in named]
        output = EVENT_IDS.encode(ids, step=key)
        await self._settled(scope, key, "send_event", asked, output, events=named)
        return ids

    async def _sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        asked = self._asked((duration, until), key)
        record = await self._take(scope, key, "sleep", asked)
        if record is not None and record.final:
            return
        if record is None:
            await self._pass("before_start", key)
            due = until if duration is None else self._host.clock.now() + duration
            record = await self._commit(scope, key, "sleep", "started", input=asked, due=due)
            await self._pass("registered", key)
        if record.due is not None:
            await self._sleep_until(record.due)
        await self._settled(scope, key, "sleep", asked, "null", started=record.at)

    async def _wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        asked = self._asked((name, match, timeout), key)
        with self._registration():
            record = await self._take(scope, key, "wait_for_event", asked)
            if record is not None and record.final:
                seen: Event | None = settle(record, MAYBE_EVENT)
                return seen
            new = record is None
            if record is None:
                await self._pass("before_start", key)
                due = None if timeout is None else self._host.clock.now() + timeout
                cursor = str(self._host.journal.cursor())
                record = await self._commit(
                    scope, key, "wait_for_event", "started", input=asked, name=name, output=cursor, due=due
                )
        if new:
            await self._pass("registered", key)
        waiting = Waiting(name, match, int(record.output or 0), record.due)
        event = self._host.find_event(waiting)
        if event is None:
            self._host.wait_for_event(waiting)
            try:
                event = await self._park(waiting.future, record.due)
            finally:
                self._host.stop_waiting(waiting)
            event = event or self._host.find_event(waiting)
        output = self._host.redactor.text(MAYBE_EVENT.encode(event, step=key))
        await self._settled(scope, key, "wait_for_event", asked, output, name=name, started=record.at)
        result: Event | None = MAYBE_EVENT.decode(output, step=key)
        return result

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self._guard(lambda: self._recorded.take_gather(scope, key, len(branches)))
        if not branches:
            return []
        host = self._host
        running = len(branches)
        host.active += running - 1

        async def drive(branch: Branch) -> Any:
            nonlocal running
            try:
                return await branch()
            except Exception as error:
                return error
            except Signal as signal:
                if not isinstance(signal, SuspendSignal | CancelSignal):
                    host.crash(signal)  # at once: in a process that is gone, the other branches do not go on
                raise
            finally:
                running -= 1
                if running:  # the last one leaves its place to this gather
                    host.active -= 1
                    host.rest()

        tasks = [asyncio.get_running_loop().create_task(drive(branch)) for branch in branches]
        try:
            await asyncio.wait(tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        signals = [error for task in tasks if (error := task.exception()) is not None]
        if signals:
            raise next((each for each in signals if not isinstance(each, SuspendSignal | CancelSignal)), signals[0])
        return [task.result() for task in tasks]

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
                self._lose(error)
            except JournalError as error:
                if delay > LAST_DELAY:
                    self.trouble = error
                    self._lose(error)
                await self._sleep_until(self._host.clock.now() + delay)
                record = replace(record, seq=self._seq)  # another branch may have written meanwhile
                delay *= 2
        else:
            raise CancelSignal
        self._seq += 1
        if record.status == "retrying" and record.key:
            self._recorded.add_failure(record.key)
        if record.final:
            scope.window = self._seq
        return record

    def _lose(self, error: DurablyError) -> NoReturn:
        """This worker cannot go on with the run."""
        if self.signal is None:
            logger.warning("%s; this worker drops the run for now", error)
        self.stale = isinstance(error, StaleRunError)
        self.interrupt(self.signal or SuspendSignal)
        raise (self.signal or SuspendSignal) from error

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

    async def _park(self, future: asyncio.Future[T], due: float | None) -> T | None:
        """Wait for a future or a moment, whichever comes first, without counting as active."""
        host = self._host
        timer = None if due is None else host.clock.call_at(due, lambda: host.wake(future, None))
        self._parked.add(future)
        host.active -= 1
        host.rest()
        try:
            value = await future
        finally:
            self._parked.discard(future)
            if timer is not None:
                timer.cancel()
            if future.cancelled():
                host.active += 1
        self._check()
        return value

    def _check(self) -> None:
        if self.signal is not None:
            raise self.signal

    async def _pass(self, name: str, key: str) -> None:
        if self._host.probe is not None:
            await pass_point(self._host.probe, Point(name, self.function.id, self.row.id, key))
            self._check()

    def _beat(self, key: str) -> Callable[[], None] | None:
        probe = self._host.probe
        if probe is None:
            return None
        return lambda: _discard(probe(Point("in_body", self.function.id, self.row.id, key)))


_RETRY = object()


def _discard(pause: Any) -> None:
    if pause is not None:
        pause.close()  # a body that only reports its progress cannot be made to wait


def _plain(text: str) -> Any:
    return _ANY.decode(text, step="")


_ANY = Codec(Any)


def _interrupted(key: str) -> StepInterruptedError:
    return StepInterruptedError(
        step=key,
        attempts=1,
        error_type="StepInterruptedError",
        message="a crash cut it off after it had started; it may have had its effect, and it may run only once",
    )


def _invoke_timeout(key: str, function: str, timeout: float | None) -> StepTimeoutError:
    return StepTimeoutError(
        step=key, attempts=1, error_type="TimeoutError", message=f"function {function!r} took longer than {timeout:g} s"
    )


def _final_error(key: str, failures: int, error: Exception) -> Exception:
    if isinstance(error, SerializationError):
        return error
    cls = StepTimeoutError if isinstance(error, StepTimeoutError) and error.step == key else StepError
    data = error_to_json(error)
    kind, message = data["type"], data.get("message") or str(error)
    if cls is StepTimeoutError:
        kind, message = "TimeoutError", error.message  # type: ignore[attr-defined]
    return cls(step=key, attempts=failures, error_type=kind, message=message)
