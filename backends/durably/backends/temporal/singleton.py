"""One live run a key: a lock for each key, kept by a small workflow that gives it to one run at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from durably.backends.temporal.commands import Commands
from durably.backends.temporal.payloads import CLAIM, LINE, STATUS
from durably.backends.temporal.system_workflows import SystemWorkflows
from durably.core import Event, Function, RunStatus
from durably.core.serialization import digest

__all__ = ["GRANT", "QUEUED", "SingletonClaim", "SingletonClient", "SingletonLock", "lock_id"]

LOCK = "durably.singleton"
GRANT = "durably-grant"
"""The signal that tells a run whether it has the lock."""

QUEUED = "durably-queued"
"""The signal that tells a run that it stands in line for the lock."""

LOOK = timedelta(minutes=1)
"""How often a lock that others wait for looks whether its holder lives: one that was terminated never gives it back."""

HANDLED = 1_000
"""After this many signals a lock goes on in a fresh history."""


def lock_id(queue: str, function: Function[Any, Any], event: Event) -> str | None:
    """The workflow id of the lock that a run needs, or ``None`` if its function has no such rule."""
    rule = function.singleton
    if rule is None:
        return None
    key = json.dumps(event.at(rule.key), sort_keys=True) if rule.key else ""
    return f"{LOCK}/{queue}/{function.id}/{digest(key)}"


@workflow.defn(name=LOCK)
class SingletonLock:
    """Knows which run holds the lock, and answers those that want it in the order in which they ask."""

    def __init__(self) -> None:
        self._inbox: list[list[Any]] = []
        self._holder: dict[str, Any] | None = None
        self._line: list[dict[str, Any]] = []

    @workflow.run
    async def run(self, holder: dict[str, Any] | None, line: list[dict[str, Any]] | None = None) -> None:
        """Answer until nobody holds the lock, or waits for it."""
        self._holder = holder
        self._line = line or []
        handled = 0
        while self._inbox or self._holder or not handled:
            await self._wait()
            if self._inbox:
                kind, message = self._inbox.pop(0)
                if kind == "claim":
                    await self._claim(message)
                else:
                    await self._release(message)
            handled += 1
            if handled >= HANDLED and not self._inbox:
                workflow.continue_as_new(args=[self._holder, self._line])

    async def _wait(self) -> None:
        """Wait for a message; while others stand in line, look after the holder meanwhile."""
        if not self._line:
            await workflow.wait_condition(lambda: bool(self._inbox))
            return
        try:
            await workflow.wait_condition(lambda: bool(self._inbox), timeout=LOOK)
        except TimeoutError:
            if self._holder is not None and not await self._is_live(self._holder["run"]):
                await self._next()

    @workflow.signal(name="claim")
    def claim(self, claim: dict[str, Any]) -> None:
        """A ``run``, started ``at`` a moment, wants the lock; ``mode`` says what happens if another one has it."""
        self._inbox.append(["claim", claim])

    @workflow.signal(name="release")
    def release(self, run_id: str) -> None:
        """A run has ended."""
        self._inbox.append(["release", run_id])

    @workflow.query(name=LINE)
    def line(self, run_id: str) -> list[str]:
        """The runs that wait for the end of a run, in their order; none if that does not hold the lock."""
        if self._holder is None or self._holder["run"] != run_id:
            return []
        # What has come and is not handled yet counts: whoever started a run may know that its claim was taken.
        released = {message for kind, message in self._inbox if kind == "release"}
        claims = [message for kind, message in self._inbox if kind == "claim" and message["mode"] == "queue"]
        waiting = {each["run"]: each["at"] for each in (*self._line, *claims) if each["run"] not in {run_id, *released}}
        return sorted(waiting, key=lambda run: float(waiting[run]))

    async def _claim(self, claim: dict[str, Any]) -> None:
        holder = self._holder
        if holder is None or holder["run"] == claim["run"]:
            granted = True
        elif claim["mode"] == "cancel":
            granted = claim["at"] >= holder["at"]  # claims may overtake each other; which run is older is certain
            await self._answer(holder["run"] if granted else claim["run"], None)
        elif claim["mode"] == "queue":
            granted = False
            await self._line_up(claim)
        else:
            granted = not await self._is_live(holder["run"])
        if granted:
            self._holder = claim
        if granted or claim["mode"] == "skip":
            await self._answer(claim["run"], granted)

    async def _line_up(self, claim: dict[str, Any]) -> None:
        if claim["run"] in (each["run"] for each in self._line):
            return  # who started a run claims for it, and it claims for itself
        self._line.append(claim)
        self._line.sort(key=lambda each: float(each["at"]))  # claims may overtake each other
        await self._tell(claim["run"], QUEUED)

    async def _next(self) -> None:
        """Give the lock to the first in line who is still there."""
        self._holder = None
        while self._line and self._holder is None:
            claim = self._line.pop(0)
            if await self._tell(claim["run"], GRANT, True):
                self._holder = claim

    async def _is_live(self, run_id: str) -> bool:
        """Ask the server whether a run has not ended: one that was terminated never gave its lock back."""
        live: bool = await workflow.execute_activity(
            "durably.is-live", run_id, start_to_close_timeout=timedelta(seconds=30), result_type=bool
        )
        return live

    async def _answer(self, run_id: str, granted: bool | None) -> None:
        """Tell a run whether it has the lock; ``None`` cancels it."""
        if granted is not None:
            await self._tell(run_id, GRANT, granted)
            return
        with suppress(ApplicationError):  # it has ended meanwhile
            await workflow.get_external_workflow_handle(run_id).cancel()

    async def _tell(self, run_id: str, signal: str, *args: Any) -> bool:
        """Signal a run; whether it was still there."""
        try:
            await workflow.get_external_workflow_handle(run_id).signal(signal, args=args)
        except ApplicationError:
            return False
        return True

    async def _release(self, run_id: str) -> None:
        self._line = [each for each in self._line if each["run"] != run_id]
        if self._holder is not None and self._holder["run"] == run_id:
            await self._next()


class SingletonClaim:
    """A run's claim of the lock of its key, if its function has such a rule.

    Args:
        function: The function.
        run_id: The run.
        event: What started it.
        queue: The task queue of the locks.
        commands: How it asks.
        answers: What the lock has answered, by signal: whether the run has it, or ``None`` where it stands in line.
    """

    def __init__(
        self,
        function: Function[Any, Any],
        run_id: str,
        event: Event,
        queue: str,
        commands: Commands,
        answers: Sequence[bool | None],
    ) -> None:
        self._rule = function.singleton
        self._lock = lock_id(queue, function, event)
        self._run_id = run_id
        self._commands = commands
        self._answers = answers
        self._taken_over = False

    async def acquire(self, at: float) -> bool:
        """Ask for the lock and wait for the answer: whether the run may go on.

        Args:
            at: When the run was started, in seconds since 1970: of two runs the younger one counts.
        """
        if self._lock is None or self._rule is None:
            return True
        await self._commands.system("durably:claim", CLAIM, self._lock, self._run_id, self._rule.mode, at)
        await workflow.wait_condition(lambda: bool(self._answers))
        if self._answers[-1] is None:
            workflow.upsert_memo({STATUS: RunStatus.WAITING.value})
            await workflow.wait_condition(lambda: self._answers[-1] is not None)
            workflow.upsert_memo({STATUS: None})
        return bool(self._answers[-1])

    def take_over(self) -> None:
        """The run got the lock in an earlier history, and has it still."""
        self._taken_over = True

    async def release(self) -> None:
        """Give the lock back, if the run has it, or its place in the line."""
        held = self._answers[-1] if self._answers else self._taken_over
        if self._lock is not None and self._rule is not None and (held or self._rule.mode == "queue"):
            try:
                await workflow.get_external_workflow_handle(self._lock).signal("release", self._run_id)
            except ApplicationError:
                workflow.logger.debug("the lock of run %s is gone", self._run_id)


class SingletonClient:
    """The way to the locks, for activities.

    Args:
        workflows: Signals them, on their task queue.
    """

    def __init__(self, workflows: SystemWorkflows) -> None:
        self._workflows = workflows

    async def claim(self, lock: str, run_id: str, mode: str, at: float) -> None:
        """Ask for a lock, for a run that was started at a moment. The answer comes by signal."""
        await self._workflows.tell(LOCK, lock, "claim", {"run": run_id, "mode": mode, "at": at}, begin=None)

    @activity.defn(name="durably.is-live")
    async def is_live(self, run_id: str) -> bool:
        """Whether a run has not ended: one that was terminated could not give its lock back."""
        return (await self._workflows.client.get_workflow_handle(run_id).describe()).close_time is None
