"""Crons on Temporal: a small workflow for each function that sleeps until its next time, and starts the run.

Temporal's own schedules are not used: they start a run twice, or none, on nights when a clock is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import ParentClosePolicy

from durably.backends.cron_times import due_times, times_after
from durably.backends.temporal.payloads import payload
from durably.backends.temporal.system_workflows import SystemWorkflows
from durably.core import Event, Function
from durably.core.flow import Cron
from durably.core.run_events import CRON, cron_run_id

__all__ = ["CRON_CLOCK", "CronClient", "CronClock"]

CRON_CLOCK = "durably.cron"

TICKS = 100
"""After so many times a clock goes on in a fresh history."""

ACTIVITY_TIMEOUT = timedelta(seconds=30)


@workflow.defn(name=CRON_CLOCK)
class CronClock:
    """Starts the runs of one function, one for each time of its cron."""

    def __init__(self) -> None:
        self._said: list[dict[str, Any] | None] = []

    @workflow.run
    async def run(self, state: dict[str, Any]) -> None:
        """Let one time after another come, until the function has no cron any more."""
        ticks = 0
        while ticks < TICKS or self._said:
            if self._said:
                said = self._said[-1]
                self._said.clear()
                if said is None:
                    return
                if said != {name: state.get(name) for name in said}:
                    state = dict(said)
            if "due" not in state:
                state["due"] = await self._ask("durably.cron-next", [state["cron"], workflow.time()], float)
            if await self._wait_until(state["due"]):
                continue
            moments, state["due"] = await self._ask(
                "durably.cron-due", [state["cron"], state["due"], workflow.time()], list
            )
            for moment in moments:
                await self._start(state, moment)
            ticks += 1
        workflow.continue_as_new(state)

    @workflow.signal(name="keep")
    def keep(self, state: dict[str, Any] | None) -> None:
        """What a worker says that this clock is to do; ``None`` if the function has no cron any more."""
        self._said.append(state)

    async def _wait_until(self, due: float) -> bool:
        """Wait for a moment; whether a worker has said something first."""
        left = due - workflow.time()
        if left <= 0:
            return bool(self._said)
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: bool(self._said), timeout=left)
        return bool(self._said)

    async def _ask(self, name: str, given: Any, result: type[Any]) -> Any:
        return await workflow.execute_activity(name, given, start_to_close_timeout=ACTIVITY_TIMEOUT, result_type=result)

    async def _start(self, state: dict[str, Any], moment: float) -> None:
        at = datetime.fromtimestamp(moment, UTC).isoformat()
        data = {"cron": state["cron"]["schedule"], "at": at} if state["tick"] else None
        run_id = cron_run_id(state["function"], at)
        with suppress(WorkflowAlreadyStartedError):
            await workflow.start_child_workflow(
                state["function"],
                payload(Event(CRON, data, id=run_id).model_dump_json()),
                id=run_id,
                task_timeout=workflow.info().task_timeout,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                parent_close_policy=ParentClosePolicy.ABANDON,
            )


class CronClient:
    """The way to the clocks of one task queue.

    Args:
        workflows: Signals them, on the task queue of the functions.
    """

    def __init__(self, workflows: SystemWorkflows) -> None:
        self._workflows = workflows

    def activities(self) -> list[Callable[..., Any]]:
        """What the clocks ask for."""
        return [_next, _due]

    async def keep(self, functions: Mapping[str, Function[Any, Any]]) -> None:
        """Let the clocks of functions go by their crons, and stop those of functions that have none any more."""
        for function in functions.values():
            if function.cron is not None:
                await self._say(function.id, _state(function, function.cron))
        for function_id in await self._running():
            if function_id in functions and functions[function_id].cron is None:
                await self._say(function_id, None)

    async def _say(self, function_id: str, state: dict[str, Any] | None) -> None:
        await self._workflows.tell(CRON_CLOCK, self._id(function_id), "keep", state, begin=state or {})

    async def _running(self) -> Iterable[str]:
        where = f"WorkflowType = '{CRON_CLOCK}' AND TaskQueue = '{self._workflows.queue}'"
        found = self._workflows.client.list_workflows(f"{where} AND ExecutionStatus = 'Running'")
        try:
            return [each.id.removeprefix(self._id("")) async for each in found]
        except RPCError as error:
            if error.status is RPCStatusCode.UNIMPLEMENTED:  # a server for tests that keeps no list
                return []
            raise

    def _id(self, function_id: str) -> str:
        return f"{CRON_CLOCK}/{self._workflows.queue}/{function_id}"


def _state(function: Function[Any, Any], cron: Cron) -> dict[str, Any]:
    return {"function": function.id, "cron": asdict(cron), "tick": function.takes_tick}


@activity.defn(name="durably.cron-next")
async def _next(asked: list[Any]) -> float:
    """The next time of a cron after a moment, in seconds since 1970."""
    return next(times_after(Cron(**asked[0]), asked[1]))


@activity.defn(name="durably.cron-due")
async def _due(asked: list[Any]) -> list[Any]:
    """The times of a cron, from one that is due, that are to have a run by a moment, and the one behind them."""
    cron = Cron(**asked[0])
    moments = due_times(cron, asked[1], asked[2])
    return [moments, next(times_after(cron, moments[-1]))]
