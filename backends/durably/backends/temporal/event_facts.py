"""What is known of an event name: the functions that its events start, and by which paths runs wait for them.

Each fact is a workflow of its own that never does anything: its memo is the fact, and its id has a number. The next
number is free for one program alone, so facts are added one behind the other, and whoever asks for the next one learns
that he knows them all. For that no worker need be up, and no workflow is passed by all events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.earlier_hub import hub_id

__all__ = ["EventFact", "EventFacts", "FactsOf"]

FACT = "durably.event-fact"

MEMO = "durably-fact"
"""The name of the memo that holds a fact."""

NEVER = timedelta(days=3650)
"""When Temporal would let a fact's workflow begin."""

NAMES = 1_000
"""Of so many event names a process keeps what it knows; of others it asks anew."""


@workflow.defn(name=FACT)
class EventFact:
    """Stands for a fact, in its memo."""

    @workflow.run
    async def run(self) -> None:
        """Do nothing, for as long as the fact holds."""
        await workflow.wait_condition(lambda: False)


@dataclass
class FactsOf:
    """What is known of one event name.

    Attributes:
        triggers: The functions that its events start, by id, and the task queue of each.
        paths: By which paths runs wait for its events: each entry is the sorted paths of one kind of match.
        count: How many facts there are.
        earlier_hub: Whether a hub of version 0.1.0 was there at the last look.
    """

    triggers: dict[str, str] = field(default_factory=dict)
    paths: list[tuple[str, ...]] = field(default_factory=list)
    count: int = 0
    earlier_hub: bool = False

    def add(self, fact: dict[str, Any]) -> None:
        """Take one more fact into account."""
        if "function" in fact:
            self.triggers[fact["function"]] = fact["queue"]
        else:
            self.paths.append(tuple(fact["paths"]))
        self.count += 1


class EventFacts:
    """Reads and adds facts.

    Args:
        client: The way to the server.
        queue: The task queue that the programs which share events have named as their hub queue.
    """

    def __init__(self, client: Client, queue: str) -> None:
        self._client = client
        self._queue = queue
        self._known: dict[str, FactsOf] = {}
        self._looking: dict[str, asyncio.Lock] = {}
        self._next: dict[str, asyncio.Task[FactsOf]] = {}

    async def read(self, name: str) -> FactsOf:
        """All facts that were added before this call, by whatever process.

        Many that ask at once share one look, which begins after the last of them has asked.
        """
        look = self._next.get(name)
        if look is None:
            look = self._next[name] = asyncio.create_task(self._read(name))
        return await asyncio.shield(look)

    async def add_trigger(self, name: str, function: str, queue: str) -> None:
        """Have the events of a name start a function.

        Args:
            name: The event name.
            function: The function's id.
            queue: Its task queue.
        """
        facts = await self.read(name)
        while facts.triggers.get(function) != queue:
            await self._add(name, facts.count, {"function": function, "queue": queue})
            facts = await self.read(name)

    async def add_paths(self, name: str, paths: Sequence[str]) -> None:
        """Make known that runs wait for the events of a name by values at these paths, sorted."""
        known = self._known.get(name)
        while known is None or tuple(paths) not in known.paths:  # a fact that is known needs no look: it stays
            known = await self.read(name)
            if tuple(paths) not in known.paths:
                await self._add(name, known.count, {"paths": list(paths)})

    async def _read(self, name: str) -> FactsOf:
        async with self._looking.setdefault(name, asyncio.Lock()):
            del self._next[name]  # who asks from now on wants a later look
            facts = self._known.setdefault(name, FactsOf())
            _, facts.earlier_hub = await asyncio.gather(self._look(name, facts), self._has_earlier_hub(name))
        if len(self._known) > NAMES:
            oldest = next(iter(self._known))
            del self._known[oldest], self._looking[oldest]
        return facts

    async def _look(self, name: str, facts: FactsOf) -> None:
        while (fact := await self._fact(self._id(name, facts.count))) is not None:
            facts.add(fact)

    async def _fact(self, fact_id: str) -> dict[str, Any] | None:
        try:
            found = await self._client.get_workflow_handle(fact_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        fact: dict[str, Any] = await found.memo_value(MEMO)
        return fact

    async def _has_earlier_hub(self, name: str) -> bool:
        try:
            found = await self._client.get_workflow_handle(hub_id(self._queue, name)).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return found.status is WorkflowExecutionStatus.RUNNING

    async def _add(self, name: str, number: int, fact: dict[str, Any]) -> None:
        """Add a fact at a number, unless another program was first."""
        try:
            await self._client.start_workflow(
                FACT,
                id=self._id(name, number),
                task_queue=self._queue,
                memo={MEMO: fact},
                start_delay=NEVER,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            return

    def _id(self, name: str, number: int) -> str:
        return f"{FACT}/{self._queue}/{name}/{number}"
