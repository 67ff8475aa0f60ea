"""The seven durable steps as commands of Temporal: activity, child workflow, timer, signal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from durably.backends.temporal.commands import CommandSteps
from durably.backends.temporal.events import hub_id
from durably.backends.temporal.outcome import ended_with, how_it_failed
from durably.backends.temporal.payloads import SEND, WAIT, Call, check_size, raw, text_of
from durably.core import Event, FunctionRef
from durably.core.attempts import Body
from durably.core.backend import RunStatus, RunView, encode_data, invoke_error
from durably.core.history import StepRecord
from durably.core.ids import derive_id
from durably.core.replay import EVENT_IDS, MAYBE_EVENT, invoke_input, settle
from durably.core.step_errors import invoke_timeout
from durably.core.step_keys import Branch, Scope

__all__ = ["TemporalSteps"]


class TemporalSteps(CommandSteps):
    """One attempt of a function's code. See :class:`~durably.backends.temporal.commands.CommandSteps`."""

    async def _run(self, scope: Scope, body: Body) -> Any:
        asked = self._asked(body.args, body.key)
        name = self._host.names.of(body.fn, self._function)
        args = self._refuse_once(body) if name is None else self._arguments(body)
        record = await self._take(scope, body.key, "step", asked)
        if record is None and name is None:
            record = await self._local(body, asked)
        elif record is None:
            call = Call(
                body=name or "", input=asked, retries=body.retries, timeout=body.timeout, once=body.at_most_once
            )
            record = await self._activity(body, call, args)
        return settle(record, body.codec)

    async def _invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        asked = self._redact(invoke_input(key, function, data))
        child = derive_id("child", self._run_id, key)
        event = self._redact(
            f'{{"name":"durably/function.invoked","data":{encode_data(function, data)},"id":"{child}"}}'
        )
        check_size([event], step=key, limit=self._host.max_payload_bytes)
        record = await self._take(scope, key, "invoke", asked)
        if record is None:
            self.pass_point("before_start", key)
            origin = {"key": key, "input": asked, "timeout": timeout}
            record = await self._child(function, child, [raw(event), raw(json.dumps(origin))], origin)
        return settle(record, function.output)

    async def _child(
        self, function: FunctionRef[Any, Any], child: str, args: list[RawValue], origin: dict[str, Any]
    ) -> StepRecord:
        key, asked, timeout = origin["key"], origin["input"], origin["timeout"]
        started = workflow.time()
        handle = await workflow.start_child_workflow(
            function.id,
            args=args,
            id=child,
            task_queue=self._host.queues.get(function.id, self._host.task_queue),
            result_type=RawValue,
            task_timeout=self._host.task_timeout,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            cancellation_type=ChildWorkflowCancellationType.TRY_CANCEL,
        )
        self.pass_point("child_started", key)
        await workflow.wait([handle], timeout=timeout)
        if not handle.done():
            handle.cancel()
            await workflow.wait([handle])
            handle.exception()
            return self._record("invoke", key, asked, started, error=invoke_timeout(key, function.id, timeout))
        self.pass_point("child_done", key)
        self.pass_point("after_commit", key)
        view = self._seen(handle, child, function.id)
        if view.status is not RunStatus.COMPLETED:
            return self._record("invoke", key, asked, started, error=invoke_error(view, step=key))
        return self._record("invoke", key, asked, started, output=view.output)

    def _seen(self, handle: asyncio.Task[RawValue], child: str, function: str) -> RunView:
        """How a child ended."""
        try:
            value = handle.result()
        except ChildWorkflowError as error:
            self._check()
            status, data = how_it_failed(error.cause)
            return RunView(id=child, function=function, status=status, error=data)
        return RunView(id=child, function=function, status=ended_with(value), output=text_of(value))

    async def _send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        asked = self._asked(events, key)
        named = [self._named(event, key, index) for index, event in enumerate(events)]
        record = await self._take(scope, key, "send_event", asked)
        if record is None:
            started = workflow.time()
            self.pass_point("before_start", key)
            value = await self.system(key, SEND, named, asked=asked)
            record = self._settled("send_event", key, asked, value, started)
            self.pass_point("after_send", key)
        ids: list[str] = settle(record, EVENT_IDS)
        return ids

    def _named(self, event: Event, key: str, index: int) -> dict[str, Any]:
        """An event as it travels: with an id of its own, and without secrets."""
        if event.id is None:
            event = event.model_copy(update={"id": derive_id("event", self._run_id, f"{key}#{index}")})
        text = self._redact(event.model_dump_json())
        check_size([text], step=key, limit=self._host.max_payload_bytes)
        named: dict[str, Any] = json.loads(text)
        return named

    async def _sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        asked = self._asked((duration, until), key)
        if await self._take(scope, key, "sleep", asked) is None:
            started = workflow.time()
            self.pass_point("before_start", key)
            due = until if duration is None else started + duration
            delay = timedelta(seconds=max(0.001, (due or 0.0) - started))
            await workflow.sleep(delay, summary=f"{key} {asked}")
            self.pass_point("after_commit", key)
            self._record("sleep", key, asked, started, output="null")

    async def _wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        asked = self._asked((name, match, timeout), key)
        self._registering += 1
        started = workflow.time()
        try:
            record = await self._take(scope, key, "wait_for_event", asked, registers=True)
            if record is None:
                self.pass_point("before_start", key)
                await self.system(key, WAIT, name, self._run_id, key, match, asked=asked)
        finally:
            self._registering -= 1
        if record is None:
            self.pass_point("registered", key)
            event = await self._event(key, name, None if timeout is None else started + timeout)
            self.pass_point("after_commit", key)
            output = self._redact(MAYBE_EVENT.encode(event, step=key))
            record = self._record("wait_for_event", key, asked, started, output=output)
        seen: Event | None = settle(record, MAYBE_EVENT)
        return seen

    async def _event(self, key: str, name: str, due: float | None) -> Event | None:
        """The event once it came, or ``None`` when the time is up first."""
        try:
            await workflow.wait_condition(
                lambda: key in self._inbox, timeout=None if due is None else max(0.001, due - workflow.time())
            )
        except TimeoutError:
            if key not in self._inbox:  # what comes from now on comes too late
                await self._forget(key, name, timed_out=True)
                return None
        except asyncio.CancelledError:
            await self._forget(key, name, timed_out=False)
            raise
        return Event.model_validate(self._inbox[key])

    async def _forget(self, key: str, name: str, *, timed_out: bool) -> None:
        hub = workflow.get_external_workflow_handle(hub_id(self._host.hub_queue, name))
        try:
            await hub.signal("forget", {"run": self._run_id, "key": key, "timed_out": timed_out})
        except ApplicationError:
            workflow.logger.debug("the hub of event %r is gone", name)

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self._guard(lambda: self._recorded.take_gather(scope, key, len(branches)))
        self._expect(lambda recording: recording.take_gather(scope.prefix, key, len(branches)))
        if not branches:
            return []

        async def drive(branch: Branch) -> Any:
            try:
                return await branch()
            except Exception as error:
                return error

        tasks = [asyncio.create_task(drive(branch)) for branch in branches]
        try:
            await workflow.wait(tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        return [task.result() for task in tasks]
