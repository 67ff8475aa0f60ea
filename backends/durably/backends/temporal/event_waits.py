"""Waits for events: how a run makes itself known to an event's hub, and what it waits for then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from durably.backends.temporal.commands import Commands
from durably.backends.temporal.earlier_hub import hub_id
from durably.backends.temporal.event_inbox import EventInbox, waits_at_run
from durably.backends.temporal.payloads import EXPECT, WAIT, text_of
from durably.core import Event

__all__ = ["EventWaits"]

SHORTEST = 0.001
"""The shortest timeout, in seconds: one of 0 is none."""


class EventWaits:
    """The waits of one run.

    Args:
        run_id: The run.
        queue: The task queue of the hubs.
        commands: How a wait is registered.
        inbox: Events that came for waiting steps.
    """

    def __init__(self, run_id: str, queue: str, commands: Commands, inbox: EventInbox) -> None:
        self._run_id = run_id
        self._queue = queue
        self._commands = commands
        self._inbox = inbox
        self._registering = 0
        self._hubs: dict[str, str] = {}

    @contextmanager
    def registration(self) -> Iterator[None]:
        """While a wait is being registered, the steps of other branches stay behind."""
        self._registering += 1
        try:
            yield
        finally:
            self._registering -= 1

    async def let_others_register(self) -> None:
        """In a branch, let the waits of other branches go first.

        Whoever will answer a wait may be told by another branch, so a wait is known to its hub before any other branch
        goes on.
        """
        await asyncio.sleep(0)
        if self._registering:
            await workflow.wait_condition(lambda: not self._registering)

    async def register(self, key: str, name: str, match: dict[str, Any], asked: str) -> None:
        """Make a wait known to the hub of what it waits for, unless that comes to the run itself."""
        here = waits_at_run(self._run_id, name, match)
        if here:
            self._inbox.expect(key, name, match, workflow.time())
        hub = await self._commands.system(key, EXPECT if here else WAIT, name, self._run_id, key, match, asked=asked)
        # Version 0.1.0 gave no answer: such a wait is known to the one hub of the event's name.
        self._hubs[key] = json.loads(text_of(hub)) or hub_id(self._queue, name)

    async def receive(self, key: str, due: float | None) -> Event | None:
        """The event once it came, or ``None`` when the time is up first.

        Args:
            key: The step key.
            due: Seconds since 1970, or ``None``.
        """
        try:
            await workflow.wait_condition(
                lambda: key in self._inbox.came, timeout=None if due is None else max(SHORTEST, due - workflow.time())
            )
        except TimeoutError:
            if key not in self._inbox.came:  # what comes from now on comes too late
                await self._forget(key, timed_out=True)
                return None
        except asyncio.CancelledError:
            # The hub would go on signalling a run that has ended.
            await self._forget(key, timed_out=False)
            raise
        return Event.model_validate(self._inbox.came[key])

    async def _forget(self, key: str, *, timed_out: bool) -> None:
        self._inbox.forget(key)
        hub = workflow.get_external_workflow_handle(self._hubs[key])
        try:
            await hub.signal("forget", {"run": self._run_id, "key": key, "timed_out": timed_out})
        except ApplicationError:
            workflow.logger.debug("hub %s is gone", self._hubs[key])
