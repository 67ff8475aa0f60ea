"""Waits for events: how a run makes itself known to an event's hub, and what it waits for then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from durably.backends.temporal.commands import Commands
from durably.backends.temporal.earlier_hub import hub_id
from durably.backends.temporal.event_inbox import EventInbox, waits_at_run
from durably.backends.temporal.hub_names import value_of_match
from durably.backends.temporal.payloads import EXPECT, WAIT, text_of
from durably.backends.temporal.waits_together import WaitsTogether
from durably.core import Event

__all__ = ["EventWaits"]

SHORTEST = 0.001
"""The shortest timeout, in seconds: one of 0 is none."""


class Registered(NamedTuple):
    """A wait that is known to its hub, and what it waits for.

    Attributes:
        hub: The hub.
        name: The event's name.
        match: What must match.
        woken: Whether it is woken for its event; if not, it looks for it whenever anything has come.
    """

    hub: str
    name: str
    match: Mapping[str, Any]
    woken: bool


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
        self._registered: dict[str, Registered] = {}
        self._together = WaitsTogether(run_id, commands)

    @property
    def registering(self) -> bool:
        """Whether a wait is being registered."""
        return self._registering > 0

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

    async def register(
        self, key: str, name: str, match: dict[str, Any], asked: str, *, many: bool, woken: bool
    ) -> None:
        """Make a wait known to the hub of what it waits for, unless that comes to the run itself.

        Args:
            key: The step key.
            name: The event name.
            match: Dotted paths and the values that must be there.
            asked: What a record of the step keeps of all that.
            many: Whether it is one of many branches: those that wait are made known together.
            woken: Whether it is to be woken for its event.
        """
        here = waits_at_run(self._run_id, name, match)
        if here:
            self._inbox.expect(key, name, match, workflow.time())
        hub = await self._together.register(key, name, match, asked) if many and not here else None
        if hub is None:
            given = await self._commands.system(
                key, EXPECT if here else WAIT, name, self._run_id, key, match, asked=asked
            )
            # Version 0.1.0 gave no answer: such a wait is known to the one hub of the event's name.
            hub = json.loads(text_of(given)) or hub_id(self._queue, name)
        self._registered[key] = Registered(hub, name, match, woken)

    async def receive(self, key: str, due: float | None) -> Event | None:
        """The event once it came, or ``None`` when the time is up first.

        Args:
            key: The step key.
            due: Seconds since 1970, or ``None``.
        """
        timeout = None if due is None else max(SHORTEST, due - workflow.time())
        try:
            if not self._registered[key].woken:
                await workflow.wait_condition(lambda: key in self._inbox.came, timeout=timeout)
            elif timeout is None:
                await self._inbox.arrival(key)
            else:
                await asyncio.wait_for(self._inbox.arrival(key), timeout)
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
        hub, name, match, _ = self._registered[key]
        waiter = {"run": self._run_id, "key": key, "value": value_of_match(name, match), "timed_out": timed_out}
        try:
            await workflow.get_external_workflow_handle(hub).signal("forget", waiter)
        except ApplicationError:
            workflow.logger.debug("hub %s is gone", hub)
