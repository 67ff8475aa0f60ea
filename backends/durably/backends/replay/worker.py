"""One worker of the replay engine: its parts, put together, and how they begin and stop.

Owns: which part has or tells which. Does not own: what each part does, and what programs ask for (``backend.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from durably.backends.replay.clock import Clock
from durably.backends.replay.deliveries import Deliveries
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Subscription
from durably.backends.replay.lease import Lease
from durably.backends.replay.parts import Parts
from durably.backends.replay.patience import patiently
from durably.backends.replay.scheduler import Scheduler
from durably.backends.replay.slots import BodySlots
from durably.backends.replay.upkeep import Upkeep
from durably.backends.replay.watcher import Watcher
from durably.core import Function, Retention
from durably.core.call_timeout import own_timeout
from durably.core.counts import is_count
from durably.core.environment import Environment
from durably.core.ids import new_id

__all__ = ["ReplayWorker", "WorkerOptions"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a program says about its worker.

    Args:
        evict: ``"always"`` replays a run from the start after each step.
        seed: Fixes the order of concurrent branches, or ``None`` to leave it to the event loop.
        poll: Seconds between looks at what other processes did, or ``None`` if there can be none.
        name: What others see this worker as; empty, the program's name and its process id.
        max_runs: How many runs it drives at once before it takes no more, or ``None``.
        max_resting: How many waiting runs stay in memory, or ``None`` for all.
        max_steps: How many bodies it runs at once, or ``None``.
        retention: How long finished runs are kept, unless their function says otherwise, or ``None``: for ever.
        patience: How many seconds a program's calls wait while another process holds the lock of the storage.

    Raises:
        ValueError: If ``evict`` is another word, or a limit no whole number from 1 (``max_resting``: from 0).
    """

    evict: Literal["never", "always"]
    seed: int | None
    poll: float | None
    name: str
    max_runs: int | None
    max_resting: int | None
    max_steps: int | None
    retention: Retention | None
    patience: float

    def __post_init__(self) -> None:
        if self.evict not in ("never", "always"):
            raise ValueError(f"evict={self.evict!r}: use 'never' or 'always'")
        limits = (
            ("max_runs", self.max_runs, 1),
            ("max_resting", self.max_resting, 0),
            ("max_steps", self.max_steps, 1),
        )
        for option, limit, least in limits:
            if limit is not None and not is_count(limit, least):
                raise ValueError(f"{option} is a whole number, {least} or more, not {limit!r}")


class ReplayWorker:
    """The parts of one worker.

    Args:
        parts: The classes of the parts.
        options: What the program says about it.
        engine: The name of the engine, for errors.
        shared: Whether other processes use the storage too.
        journal: Where runs are kept.
        clock: Where time comes from.
        functions: The functions that it runs, by id.
        environment: What it gives their bodies.
        awaited: Gives the ids of the runs whose ends the program waits for.
        crash: Lets the worker die as a process does.

    Attributes:
        id: The id that its runs have as their owner.
        up: Whether it has begun and not stopped.
    """

    def __init__(
        self,
        parts: Parts,
        options: WorkerOptions,
        *,
        engine: str,
        shared: bool,
        journal: Journal,
        clock: Clock,
        functions: Mapping[str, Function[Any, Any]],
        environment: Environment,
        awaited: Callable[[], Collection[str]],
        crash: Callable[[BaseException], None],
    ) -> None:
        self.id = new_id()
        self.up = False
        self._options = options
        self._journal = journal
        self._clock = clock
        self._functions = functions
        self.lease = Lease(journal, self.id)
        self.scheduler = Scheduler(clock)
        self.log = parts.log(journal, self.id, functions, environment, self.scheduler)
        self.host = parts.host(
            environment=environment,
            functions=functions,
            log=self.log,
            lease=self.lease,
            scheduler=self.scheduler,
            events=parts.events(journal, self.scheduler),
            slots=parts.slots(self.log, self.scheduler),
            evict=options.evict == "always",
            seed=options.seed,
            body_slots=None if options.max_steps is None else BodySlots(options.max_steps, self.scheduler),
            crash=crash,
        )
        self.driver = parts.driver(
            self.host,
            records=parts.records,
            steps=parts.steps,
            keys=parts.keys,
            max_runs=options.max_runs,
            max_resting=options.max_resting,
        )
        self.claims = parts.claims(functions, self.log, self.driver, clock)
        self._deliveries = Deliveries(self.log, clock)
        self.upkeep = Upkeep(
            engine,
            journal,
            functions,
            lease=self.lease,
            worker=self.id,
            name=options.name,
            retention=options.retention,
            clock=clock,
            awaited=lambda: [*awaited(), *self.scheduler.awaited_runs],
            shared=shared,
            patience=options.patience,
        )
        self._crons = None if journal.flow is None else parts.crons(self.host, journal.flow, clock)
        self._watcher = Watcher(
            self.host,
            self.driver,
            upkeep=self.upkeep,
            claims=self.claims,
            deliveries=self._deliveries,
            crons=self._crons,
        )
        self._connect()

    def _connect(self) -> None:
        """Let those parts hear of each other that were made one after the other."""
        self.log.takes_runs = self.claims.has_room
        self.scheduler.run_rests = self.claims.fill_up
        self.lease.lapsed = self.driver.drop_lost
        self.driver.trial_over = self.claims.recover
        for apply in (self.upkeep.apply, self._deliveries.apply, self.claims.apply):
            self.log.subscribe(apply)

    async def open(self, *, is_client: bool) -> None:
        """Open the journal and go on with unfinished runs.

        Args:
            is_client: Whether it has no functions, and only waits for the runs of others.
        """
        await patiently(self._journal.start, self._options.patience)
        self.up = True
        self.claims.open()
        if not is_client:
            self._deliveries.open()
        self.driver.open()
        if not is_client:
            await self._begin_work()
        if self._options.poll is not None:
            self._watcher.begin(self._options.poll, is_client=is_client)

    async def _begin_work(self) -> None:
        patience = self._options.patience
        await patiently(self._sign_on, patience)
        self._deliveries.deliver()
        if self._crons is not None:
            await patiently(self._crons.open, patience)
        await patiently(self.claims.claim, patience)
        self.driver.begin()  # not before: whoever opens this may have something to set before its runs go on

    async def _sign_on(self) -> None:
        await self.upkeep.sign_on()
        subscriptions = [Subscription.of(function) for function in self._functions.values()]
        await self.log.sign_on(subscriptions, self._clock.now(), self.upkeep.event_memory)

    async def close(self, drain_timeout: float, *, is_client: bool) -> None:
        """Stop at the next step boundary of each run, give the runs back, and close the journal.

        Args:
            drain_timeout: How many seconds running bodies are given.
            is_client: As for :meth:`open`.
        """
        await self.upkeep.stop()
        cut_off = await self.driver.stop(drain_timeout)  # meanwhile the lease is looked after
        await self._watcher.stop()
        self._deliveries.close()
        self.claims.close()
        if self._crons is not None:
            self._crons.close()
        self.up = False
        try:
            if self.log.crash is None and not is_client:
                await self.patiently(lambda: self.log.write(lambda: self._journal.let_go(self.id, cut_off)))
        finally:
            await self._journal.stop()

    async def patiently(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write for a program, which may wait for the lock of the storage as long as was said."""
        written = await patiently(write, own_timeout(self._options.patience))
        if self._options.poll is not None:
            await asyncio.sleep(0)  # a commit may be done at once: who calls again and again lets others have a turn
        return written
