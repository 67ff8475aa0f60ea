"""One run in memory: its steps, answered from the records where they can be and run where they must be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from durably.backends.replay.host import Waiting
from durably.backends.replay.journal import NewRun
from durably.backends.replay.records import Recorder
from durably.core import (
    DefinitionError,
    Event,
    Function,
    FunctionRef,
    StepTimeoutError,
)
from durably.core.attempts import Body, run_body
from durably.core.backend import RunStatus, RunView, encode_data, invoke_error
from durably.core.errors import CancelSignal, Signal, SuspendSignal, is_retriable
from durably.core.ids import derive_id
from durably.core.replay import EVENT_IDS, MAYBE_EVENT, invoke_input, settle
from durably.core.serialization import Codec
from durably.core.step_errors import final_error, interrupted, invoke_timeout
from durably.core.step_keys import Branch, Scope
from durably.core.steps import Point, StepInfo

__all__ = ["Execution"]

T = TypeVar("T")


class Execution(Recorder):
    """One pass of a run's code over its records. See :class:`~durably.backends.replay.records.Recorder`."""

    async def _run(self, scope: Scope, body: Body) -> Any:
        key = body.key
        asked = self._asked(body.args, key)
        record = await self._take(scope, key, "step", asked)
        if record is not None:
            if record.final:
                return settle(record, body.codec)
            if record.status == "started":
                await self._fail(scope, record, interrupted(key))
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
            final = final_error(key, failures, error)
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
        given = _plain(encode_data(function, data))  # before anything is recorded: a wrong input leaves no trace
        record = await self._take(scope, key, "invoke", asked)
        if record is not None and record.final:
            return settle(record, function.output)
        if record is None:
            await self._pass("before_start", key)
            event = Event("durably/function.invoked", given, id=child)
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
            return await self._fail(scope, record, invoke_timeout(key, function.id, timeout), cancel=child)
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
