"""The workflow that runs a function: its attempts, its end, and its going on in a fresh history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.workflow import DynamicWorkflowConfig, ParentClosePolicy

from durably.backends.temporal.code_change.failure_commands import failed_event
from durably.backends.temporal.events import DELIVER, HUB
from durably.backends.temporal.host import ARGUMENT, HOST, Host
from durably.backends.temporal.payloads import CLAIM, RECALL, RETRY, STATUS, SUMMARY, failure, raw, text_of, unpack
from durably.backends.temporal.singleton import GRANT, slot_of
from durably.backends.temporal.steps import TemporalSteps
from durably.core import Context, Event, Function
from durably.core.backend import RunStatus
from durably.core.errors import CancelSignal, Signal, is_retriable
from durably.core.history import StepRecord
from durably.core.ids import derive_id
from durably.core.run_logger import RunLogger

__all__ = ["Attempts", "FunctionWorkflow"]


class Attempts:
    """A run: one attempt of a function's code in each history, until one succeeds or none is left.

    Args:
        host: The worker.
        inbox: Events that came for waiting steps, by step key.
        grants: The answer to the run's claim of a singleton place, once it came.
    """

    def __init__(self, host: Host, inbox: dict[str, dict[str, Any]], grants: list[bool]) -> None:
        info = workflow.info()
        function = host.functions.get(info.workflow_type)
        if function is None:
            raise RuntimeError(
                f"this worker does not serve function {info.workflow_type!r}; the run waits for one that does"
            )
        self._host = host
        self._function: Function[Any, Any] = function
        self._run_id = info.workflow_id
        self._inbox = inbox
        self._grants = grants
        self._records: list[StepRecord] = []
        self._failures = 0
        self.steps = self._new_steps()

    async def run(self, args: Sequence[RawValue]) -> RawValue:
        """Run it to its end, whatever that is."""
        self._input = args[0]
        self._event = Event.model_validate_json(text_of(args[0]))
        origin = json.loads(text_of(args[1])) if len(args) > 1 else {}
        self._failures = origin.get("failures", 0)
        try:
            if not await self._may_run(origin):
                workflow.upsert_memo({STATUS: RunStatus.SKIPPED.value})
                return raw("null", **{STATUS: RunStatus.SKIPPED.value})
            output = await self._once()
        except (CancelSignal, asyncio.CancelledError):
            await self._release()
            raise asyncio.CancelledError from None
        except Signal as signal:
            raise RuntimeError("this worker has crashed") from signal
        except ApplicationError:
            await self._release()
            raise
        await self._release()
        return output

    async def _may_run(self, origin: dict[str, Any]) -> bool:
        if "continued" in origin:
            await self._recall(origin["continued"])
            if "due" in origin:
                await self._back_off(origin["due"], origin["why"])
            return True
        parent = workflow.info().parent
        triggered = parent is not None and parent.workflow_id.startswith(f"{HUB}/")
        if triggered and self._event.name not in self._function.triggers:
            return False  # the hub remembers a trigger that the function has no more
        return await self._claim(origin.get("at", _started()))

    async def _once(self) -> RawValue:
        """The attempt of this history. The next one begins a fresh one, so that no code of this one runs again."""
        try:
            return await self._attempt()
        except Exception as error:
            if workflow.cancellation_reason() is not None:
                raise CancelSignal from error
            self.steps.check_failure(error)
            self._failures += 1
            if self._failures > self._function.retries or not is_retriable(error):
                # From nothing: Temporal would keep the cause, and what is secret in it.
                raise await self._failed(error) from None
            self._retry(error)

    def _retry(self, error: Exception) -> NoReturn:
        self.steps.pass_point("backing_off", "")
        delay = self._function.retry_policy.next_delay(error, self._failures, derive_id("run", self._run_id, ""))
        why = self._host.redactor.text(f"{RETRY}{self._failures} {type(error).__name__}: {error}")
        self._leave(due=workflow.time() + delay, why=why[:SUMMARY])

    async def _back_off(self, due: float, why: str) -> None:
        """Wait until the next attempt. The timer's summary says why, in Temporal's pages and in our own history."""
        await workflow.sleep(max(0.001, due - workflow.time()), summary=why)

    async def _attempt(self) -> RawValue:
        function, host = self._function, self._host
        self.steps = self._new_steps()
        context = Context(
            step=self.steps,
            event=self._event,
            input=function.input.validate(self._event.data, what=f"the input of {function.id!r}"),
            run_id=self._run_id,
            attempt=self._failures + 1,
            logger=RunLogger(function.id, self._run_id, host.redactor, lambda: self.steps.replaying),
            resources=host.resources,
        )
        self.steps.pass_point("before_first", "")
        value = await function.handler(context)
        if workflow.cancellation_reason() is not None:
            raise CancelSignal
        self.steps.check_end()
        output = host.redactor.text(function.output.encode(value, step="", limit=host.max_payload_bytes))
        function.output.decode(output, step="")
        self.steps.pass_point("before_result", "")
        return raw(output)

    async def _failed(self, error: Exception) -> ApplicationError:
        """The end after the last attempt; the failure handler is started once, by its id."""
        self.steps.pass_point("before_result", "")
        failed = failure(error, self._host.redactor)
        handler = self._function.on_failure
        if handler is not None:
            event = failed_event(self._function, self._run_id, self._event, failed.details[0])
            await workflow.start_child_workflow(
                handler.id,
                raw(event.model_dump_json()),
                id=event.id or "",
                task_timeout=self._host.task_timeout,
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        return failed

    def _new_steps(self) -> TemporalSteps:
        return TemporalSteps(self._host, self._function, self._run_id, self._records, self._inbox, self._leave)

    # -- one live run a key

    @property
    def _slot(self) -> str | None:
        return slot_of(self._host.hub_queue, self._function, self._event)

    async def _claim(self, at: float) -> bool:
        slot, rule = self._slot, self._function.singleton
        if slot is None or rule is None:
            return True
        await self.steps.system("durably:claim", CLAIM, slot, self._run_id, rule.mode, at)
        await workflow.wait_condition(lambda: bool(self._grants))
        return self._grants[-1]

    async def _release(self) -> None:
        slot = self._slot
        if slot is not None and self._grants and self._grants[-1]:
            try:
                await workflow.get_external_workflow_handle(slot).signal("release", self._run_id)
            except ApplicationError:
                workflow.logger.debug("the place of run %s is gone", self._run_id)

    # -- a fresh history

    def _leave(self, **why: Any) -> NoReturn:
        origin = {"continued": workflow.info().run_id, "failures": self._failures, **why}
        workflow.continue_as_new(args=[self._input, raw(json.dumps(origin))])

    async def _recall(self, history: str) -> None:
        """Take over what the run came to in its earlier histories, in pieces that fit."""
        more = True
        while more:
            place = len(self._records)
            found = await self.steps.system(f"durably:recall:{place}", RECALL, self._run_id, history, place)
            packed, more = json.loads(text_of(found))
            self._records.extend(unpack(packed))
        if self._slot is not None:
            self._grants.append(True)


def _started() -> float:
    return workflow.info().workflow_start_time.timestamp()


@workflow.defn(dynamic=True)
class FunctionWorkflow:
    """A run of a durable function, whichever its worker serves under the workflow's type."""

    def __init__(self) -> None:
        self._inbox: dict[str, dict[str, Any]] = {}
        self._grants: list[bool] = []
        self._attempts: Attempts | None = None

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> RawValue:
        """Run the function to its end."""
        host: Host = workflow.extern_functions()[HOST]()
        self._attempts = Attempts(host, self._inbox, self._grants)
        return await self._attempts.run(args)

    @workflow.dynamic_config
    def config(self) -> DynamicWorkflowConfig:
        """What the worker's versions mean to a run."""
        host: Host = workflow.extern_functions()[HOST]()
        return DynamicWorkflowConfig(versioning_behavior=host.versioning)

    @workflow.signal(name=DELIVER)
    def deliver(self, key: str, event: dict[str, Any]) -> None:
        """An event came for a step that waits."""
        self._inbox.setdefault(key, event)

    @workflow.signal(name=GRANT)
    def grant(self, granted: bool) -> None:
        """Whether this run has the place of its singleton key."""
        self._grants.append(granted)

    @workflow.query(name=ARGUMENT)
    def argument(self, key: str, index: int, piece: int) -> list[Any]:
        """A piece of a large argument of a step that is under way."""
        if self._attempts is None:
            raise LookupError("the run has not begun")
        return self._attempts.steps.argument(key, index, piece)
