"""What the runs of one worker share."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from durably.backends.replay.events import EventWaiters
from durably.backends.replay.flow.slots import Slots
from durably.backends.replay.journal_types import NewRun, Subscription
from durably.backends.replay.lease import Lease
from durably.backends.replay.records import Log
from durably.backends.replay.scheduler import Scheduler
from durably.backends.replay.slots import BodySlots
from durably.core import Function
from durably.core.environment import Environment

__all__ = ["ReplayHost"]

logger = logging.getLogger("durably")


@dataclass(kw_only=True)
class ReplayHost:
    """One worker, as the code of its runs sees it.

    Attributes:
        environment: What bodies and functions are run with.
        functions: What it serves, by id.
        log: Where records are written, and read.
        lease: Until when its runs are its own.
        scheduler: Wakes what waits, and knows the time.
        events: Who waits for which event.
        slots: Which bodies run, where a function limits them.
        evict: Whether a run is replayed from the start after each step.
        seed: Fixes the order of concurrent branches, or ``None`` to leave it to the event loop.
        body_slots: The places for bodies on this worker, or ``None`` if their number is not limited.
        crash: Lets the worker die as a process does. For the harness.
        unserved: The ids of functions whose runs are said to wait for a worker.
    """

    environment: Environment
    functions: Mapping[str, Function[Any, Any]]
    log: Log
    lease: Lease
    scheduler: Scheduler
    events: EventWaiters
    slots: Slots
    evict: bool
    seed: int | None
    body_slots: BodySlots | None
    crash: Callable[[BaseException], None]
    unserved: set[str] = field(default_factory=set)

    def new_run(self, run_id: str, function: str, event: str, parent: str | None = None) -> NewRun:
        """A run to be created, under the rules of its function.

        Args:
            run_id: Its id.
            function: The id of its function.
            event: What starts it, as JSON text; secrets in it are masked here.
            parent: The run that waits for it, or ``None``.
        """
        known = self.functions.get(function)
        rule = self.log.journal.subscription(function) if known is None else Subscription.of(known)
        if rule is None and function not in self.unserved:
            self.unserved.add(function)
            logger.warning("no worker has ever served %r: run %s, and others of it, wait for one", function, run_id)
        text = self.environment.redactor.text(event)
        new = NewRun(id=run_id, function=function, event=text, parent=parent)
        return new if rule is None else replace(new, singleton=rule.singleton, rules=rule.rules)

    def turns(self, key: str) -> int:
        """How often a step of a branch lets the others go first, as the seed says."""
        return 0 if self.seed is None else random.Random(f"{self.seed}/{key}").randrange(4)
