"""Driving one run: the workflow that runs a function's code to its end, or on into a fresh history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import DynamicWorkflowConfig, ParentClosePolicy

from durably.backends.temporal.commands import Commands, ContinueAsNewSignal, check_cancelled
from durably.backends.temporal.crash import CRASHED
from durably.backends.temporal.earlier_hub import HUB
from durably.backends.temporal.event_inbox import EventInbox
from durably.backends.temporal.host import HOST, TemporalHost
from durably.backends.temporal.payloads import (
    ARGUMENT,
    DELIVER,
    OFFER,
    RECALL,
    RETRY,
    STATUS,
    STUCK,
    SUMMARY,
    ActivityRequest,
    failure,
    payload,
    text_of,
    unpack,
)
from durably.backends.temporal.records import RunRecords
from durably.backends.temporal.singleton import GRANT, QUEUED, SingletonClaim
from durably.backends.temporal.steps import TemporalSteps
from durably.core import Event, Function
from durably.core.cause import Cause
from durably.core.error_text import error_text, type_name
from durably.core.errors import CancelSignal, MissingKeyError, NonDeterminismError, Signal, error_to_json
from durably.core.failure_log import log_failed_run
from durably.core.function_attempts import function_retry_delay, run_function
from durably.core.functions import check_event_keys
from durably.core.history import RecordStatus, StepRecord
from durably.core.run_events import CRON, failed_event
from durably.core.run_view import RunStatus
from durably.core.step_keys import KeyedSteps

__all__ = ["FunctionWorkflow", "RunDriver"]

CALL_OFF_RETRIES = 2
"""How often an activity is tried again that a cancelled run asked for."""


class RunDriver:
    """One run in one of its histories, which holds one attempt of the function's code.

    Args:
        host: The worker.
        function: The code.
        args: What the workflow was started with: the event, and from where the run comes.
        commands: How activities are run.
        inbox: Events that came for waiting steps.
        answers: What the lock of the function's singleton key has answered.
    """

    def __init__(
        self,
        host: TemporalHost,
        function: Function[Any, Any],
        args: Sequence[RawValue],
        commands: Commands,
        inbox: EventInbox,
        answers: Sequence[bool | None],
    ) -> None:
        self._host = host
        self._function = function
        self._run_id = workflow.info().workflow_id
        self._input = args[0]
        self._event = Event.model_validate_json(text_of(args[0]))
        self._cause = Cause.of(self._event)
        self._origin: dict[str, Any] = json.loads(text_of(args[1])) if len(args) > 1 else {}
        self._failures: int = self._origin.get("failures", 0)
        self._commands = commands
        self._steps: KeyedSteps | None = None
        self._inbox = inbox
        self._claim = SingletonClaim(function, self._run_id, self._event, host.hub_queue, commands, answers)

    async def run(self) -> RawValue:
        """Run the function to its end, whatever that is."""
        try:
            await self._check_keys()
            if not await self._may_run():
                # A list of runs shows the memo, and not what a run returned.
                workflow.upsert_memo({STATUS: RunStatus.SKIPPED.value})
                return payload("null", **{STATUS: RunStatus.SKIPPED.value})
            output = await self._attempt(await self._recall())
        except ContinueAsNewSignal:
            self._continue_as_new()
        except (CancelSignal, asyncio.CancelledError):
            self._tell("cancelled")
            await self._claim.release()
            await self._call_off()
            # Whatever unwound the code: this is what Temporal takes for the end of a run that was cancelled.
            raise asyncio.CancelledError from None
        except Signal as signal:
            # No error that Temporal would write down as the run's: the task is tried again, by another worker.
            raise RuntimeError(CRASHED) from signal
        except ApplicationError as error:
            self._tell("failed", error=error.details[0])
            await self._claim.release()
            raise
        self._tell("completed", output=text_of(output))
        await self._claim.release()
        return output

    async def _call_off(self) -> None:
        """Run what the code asked for in the case that it is cancelled: activities that are no steps."""
        if self._steps is None or workflow.cancellation_reason() is None:  # else the workflow only leaves the cache
            return
        for call in self._steps.to_call_off:
            name = self._host.registry.name_of(call.fn, self._function)
            request = ActivityRequest(body=name or "", retries=CALL_OFF_RETRIES)
            try:
                if name is None:
                    await self._commands.local_activity(call, request)
                else:
                    await self._commands.activity(call, request, self._commands.arguments(call))
            except (ActivityError, ApplicationError) as error:
                what = call.fn.__qualname__
                workflow.logger.warning("run %s was cancelled, and %s failed: %s", self._run_id, what, error.__cause__)

    def _tell(self, status: RecordStatus, **fields: Any) -> None:
        """Tell observers how the run goes; ``at`` is when, in seconds since 1970, if not now."""
        began = workflow.info().workflow_start_time.timestamp()
        fields = {"at": workflow.time(), "name": self._function.id, **fields}
        # Of a run that has gone on in a fresh history, this one does not know when it began.
        took = 0.0 if "continued" in self._origin else fields["at"] - began
        record = StepRecord(self._run_id, 0, "", "run", status, took=took, **fields)
        self._host.tell_of(record, self._function.id, self._cause)

    async def _check_keys(self) -> None:
        """Fail a run whose event has nothing at a key, before it shares that with strangers."""
        if "continued" in self._origin:
            return
        try:
            check_event_keys(self._function, self._event)
        except MissingKeyError as error:
            if workflow.patched("durably-keys"):  # a run of an earlier version went on
                raise await self._fail(error) from None

    async def _may_run(self) -> bool:
        """Whether there is anything to do; waits for the lock of the function's singleton key."""
        if "continued" in self._origin and "resumed" not in self._origin:
            return True
        parent = workflow.info().parent
        by_hub = parent is not None and parent.workflow_id.startswith(f"{HUB}/")
        if (by_hub or "triggered" in self._origin) and self._event.name not in self._function.triggers:
            return False  # what is known of the event's name has a trigger that the function has no more
        if self._event.name == CRON and self._function.cron is None:
            return False
        started = workflow.info().workflow_start_time.timestamp()
        return await self._claim.acquire(self._origin.get("at", started))

    async def _attempt(self, earlier: Sequence[StepRecord]) -> RawValue:
        """The attempt of this history. The next one begins a fresh one, so that no code of this one runs again."""
        host, run_id = self._host, self._run_id
        records = RunRecords(run_id, host.environment, earlier, host.histories.get(workflow.info().run_id))
        returning = "continued" in self._origin and not {"due", "resumed"} & self._origin.keys()
        engine = TemporalSteps(
            host, self._function, run_id, self._cause, records, self._commands, self._inbox, returning=returning
        )
        steps = self._steps = KeyedSteps(engine)
        engine.pass_point("before_first", "")
        if "continued" not in self._origin:
            started = workflow.info().workflow_start_time.timestamp()
            self._tell("started", output=text_of(self._input), at=started)
        try:
            output = await run_function(
                self._function, steps, self._event, host.environment, run_id=run_id, attempt=self._failures + 1
            )
            check_cancelled()  # the code may have caught what cancelled it
        except Exception as error:
            check_cancelled()
            engine.room.check_left()
            if steps.refusal is None:
                records.check_failure(error)
            if isinstance(error, NonDeterminismError) and not workflow.unsafe.is_replaying():
                # As where Temporal's own check sees it: the next try of the task ends the run, or lets it wait.
                host.histories.note_mismatch(workflow.info().run_id, error)
                raise RuntimeError(str(error)) from None
            self._failures += 1
            delay = function_retry_delay(self._function, run_id, self._failures, error)
            if not workflow.unsafe.is_replaying():
                log_failed_run(self._function.id, run_id, self._failures, error, delay, host.environment.redactor.text)
            if delay is not None:
                engine.pass_point("backing_off", "")
                self._retry(error, delay)
            engine.pass_point("before_result", "")
            # From nothing: Temporal would keep the cause, and what is secret in it.
            raise await self._fail(error, was_retried=any(each.status == "resumed" for each in earlier)) from None
        engine.pass_point("before_result", "")
        return payload(output)

    def _retry(self, error: Exception, delay: float) -> NoReturn:
        redact, due = self._host.environment.redactor.text, workflow.time() + delay
        data = error_to_json(error, redact)
        self._tell("retrying", attempt=self._failures, error=data, due=due)
        why = f"{RETRY}{self._failures} {type_name(error)}: {error_text(error, redact)}"
        self._continue_as_new(due=due, why=why[:SUMMARY], error=data)

    async def _fail(self, error: Exception, *, was_retried: bool = False) -> ApplicationError:
        """The end after the last attempt; the failure handler is started once, by its id."""
        failed = failure(error, self._host.environment.redactor)
        handler = self._function.on_failure
        if handler is not None and not was_retried:
            place = self._host.environment.observers.traceparent(self._run_id, "", self._cause)
            event = failed_event(self._function, self._run_id, self._event, failed.details[0], place)
            await workflow.start_child_workflow(
                handler.id,
                payload(event.model_dump_json()),
                id=event.id or "",
                task_timeout=self._host.task_timeout,
                # The handler goes on when this run has ended, which is at once.
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        return failed

    # -- a fresh history

    def _continue_as_new(self, **why: Any) -> NoReturn:
        origin = {"continued": workflow.info().run_id, "failures": self._failures, **why}
        args = [self._input, payload(json.dumps(origin))]
        workflow.continue_as_new(args=args, task_timeout=self._host.task_timeout)

    async def _recall(self) -> list[StepRecord]:
        """What the run came to in earlier histories, in pieces that fit; then the delay before this attempt."""
        records: list[StepRecord] = []
        change: list[dict[str, Any]] = []
        history = self._origin.get("continued")
        if "forked" in self._origin:
            change, history = [self._origin], self._origin["forked"]["history"]
        elif "resumed" in self._origin:
            change = [{"resumed": self._origin["resumed"]}]
        if history is None:
            return records
        more = True
        while more:
            place = len(records)
            key = f"durably:recall:{place}"
            found = await self._commands.system(key, RECALL, self._run_id, history, place, *change)
            packed, more = json.loads(text_of(found))
            records.extend(unpack(packed))
        if not change:
            self._claim.take_over()
        if "due" in self._origin:
            # The summary says why there is a delay, in Temporal's pages and in the run's own records.
            delay = max(0.001, self._origin["due"] - workflow.time())
            await workflow.sleep(delay, summary=self._origin["why"])
        return records


@workflow.defn(dynamic=True)
class FunctionWorkflow:
    """A run of a durable function, whichever its worker serves under the workflow's type."""

    def __init__(self) -> None:
        self._inbox = EventInbox()
        self._answers: list[bool | None] = []
        self._commands: Commands | None = None

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> RawValue:
        """Run the function to its end."""
        host: TemporalHost = workflow.extern_functions()[HOST]()
        name = workflow.info().workflow_type
        function = host.functions.get(name)
        if function is None:
            raise RuntimeError(f"this worker does not serve function {name!r}; the run waits for one that does")
        self._commands = Commands(host)
        return await RunDriver(host, function, args, self._commands, self._inbox, self._answers).run()

    @workflow.dynamic_config
    def config(self) -> DynamicWorkflowConfig:
        """What the worker's versions mean to a run."""
        host: TemporalHost = workflow.extern_functions()[HOST]()
        return DynamicWorkflowConfig(versioning_behavior=host.versioning)

    @workflow.signal(name=DELIVER)
    def deliver(self, key: str, event: dict[str, Any]) -> None:
        """An event came for a step that waits; the first one counts."""
        self._inbox.deliver(key, event)

    @workflow.signal(name=OFFER)
    def offer(self, offer: dict[str, Any]) -> None:
        """An ``event`` came that may answer a step which waits since a moment earlier than ``before``."""
        self._inbox.offer(offer["event"], offer["before"])

    @workflow.signal(name=GRANT)
    def grant(self, granted: bool) -> None:
        """Whether this run has the lock of its singleton key."""
        self._answers.append(granted)

    @workflow.signal(name=QUEUED)
    def queued(self) -> None:
        """This run stands in line for the lock of its singleton key."""
        self._answers.append(None)

    @workflow.signal(name=STUCK)
    def stuck(self, error: dict[str, Any]) -> None:
        """A worker's code did not fit this run. It stands in the history, for those who look at the run."""

    @workflow.query(name=ARGUMENT)
    def argument(self, key: str, index: int, piece: int) -> list[Any]:
        """A piece of a large argument of a step that is under way."""
        if self._commands is None:
            raise LookupError("the run has not begun")
        return self._commands.argument(key, index, piece)
