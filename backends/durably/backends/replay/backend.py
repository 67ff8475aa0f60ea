"""The replay engine as a backend: a worker that claims runs, looks after its lease, and answers programs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import SecretStr

from durably.backends.cron_times import check_cron
from durably.backends.replay.clock import Clock
from durably.backends.replay.deliveries import Deliveries
from durably.backends.replay.flow.rules import check_priority
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Subscription
from durably.backends.replay.lease import Lease
from durably.backends.replay.outcome import find_run, view_of
from durably.backends.replay.parts import Parts
from durably.backends.replay.patience import patiently
from durably.backends.replay.run_list import find_page, is_heard, tally, waiting_behind
from durably.backends.replay.scheduler import Scheduler
from durably.backends.replay.slots import BodySlots
from durably.backends.replay.upkeep import Upkeep
from durably.backends.replay.watcher import Watcher
from durably.core import (
    Backend,
    Event,
    Function,
    FunctionRef,
    Observer,
    Pruned,
    Retention,
    RunNotFoundError,
    WorkerView,
)
from durably.core.approval import APPROVAL_GIVEN
from durably.core.approval_desk import QUESTION_STEPS
from durably.core.call_timeout import own_timeout
from durably.core.deltas import DeltaStore
from durably.core.durations import Duration, duration_seconds
from durably.core.history import History, StepRecord
from durably.core.ids import new_id
from durably.core.run_events import started_event
from durably.core.run_filter import FoundRuns, RunFilter
from durably.core.run_input import check_same_start
from durably.core.run_view import RunStatus, RunView
from durably.core.services import EngineServices, WaitingRun

__all__ = ["ReplayBackend"]

T = TypeVar("T")

logger = logging.getLogger("durably")

BUSY_SECONDS = 30.0

MAX_RESTING = 200
"""Replaying a run that waited costs more than to keep it; of so many, the memory costs more."""


class ReplayBackend(Backend):
    """What the memory and the SQLite backends share: everything but the storage.

    Args:
        functions: What it runs.
        journal: Where runs are kept.
        clock: Where time comes from.
        threads: Whether sync bodies run in threads.
        seed: Fixes the order of concurrent branches, or ``None`` to leave it to the event loop.
        evict: ``"always"`` replays a run from the start after each step.
        poll: Seconds between looks at what other processes did, or ``None`` if there can be none.
        worker_name: What others see this worker as; left out, the program's name and its process id.
        max_runs: How many runs it drives at once before it takes no more, or ``None``. Those that wait do not count.
        max_resting: How many waiting runs stay in memory, or ``None`` for all. The others are replayed when they go on.
        max_steps: How many bodies it runs at once, or ``None``; the others wait for their turn.
        retention: How long finished runs are kept, unless their function says otherwise; left out, for ever.
        busy_timeout: How long a program's calls wait while another process holds the lock of the storage.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return; left out, what the backend says it can keep.
        observers: See :class:`~durably.core.Backend`.
        deltas: See :class:`~durably.core.Backend`.

    Attributes:
        journal: Where runs are kept.
        clock: Where time comes from.
        worker: The id of this worker.
        lease: Until when its runs are its own.
        claims: Which runs it takes up.
    """

    parts: ClassVar[Parts] = Parts()
    longest_look = 0.1

    def __init__(
        self,
        functions: Sequence[Function[Any, Any]],
        *,
        journal: Journal,
        clock: Clock,
        threads: bool,
        seed: int | None = None,
        evict: Literal["never", "always"] = "never",
        poll: float | None = None,
        worker_name: str = "",
        max_runs: int | None = None,
        max_resting: int | None = MAX_RESTING,
        max_steps: int | None = None,
        retention: Retention | None = None,
        busy_timeout: Duration = BUSY_SECONDS,
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
        observers: Iterable[Observer] = (),
        deltas: DeltaStore | None = None,
    ) -> None:
        if evict not in ("never", "always"):
            raise ValueError(f"evict={evict!r}: use 'never' or 'always'")
        super().__init__(
            functions,
            resources=resources,
            secrets=secrets,
            max_payload_bytes=max_payload_bytes,
            threads=threads,
            observers=observers,
            deltas=deltas,
            services=EngineServices(journal.sessions, None if journal.flow is None else self._waiting),
        )
        self.environment.observers.now = clock.now
        self.journal = journal
        self.clock = clock
        self.worker = new_id()
        self.busy_timeout = duration_seconds(busy_timeout, f"{type(self).__name__}: busy_timeout")
        self._poll = poll
        self._died = asyncio.Event()
        self._awaited: Counter[str] = Counter()
        self._up = False
        self.lease = Lease(journal, self.worker)
        self._scheduler = Scheduler(clock)
        self._log = self.parts.log(journal, self.worker, self.functions, self.environment, self._scheduler)
        self._host = self.parts.host(
            environment=self.environment,
            functions=self.functions,
            log=self._log,
            lease=self.lease,
            scheduler=self._scheduler,
            events=self.parts.events(journal, self._scheduler),
            slots=self.parts.slots(self._log, self._scheduler),
            evict=evict == "always",
            seed=seed,
            body_slots=None if max_steps is None else BodySlots(check_limit("max_steps", max_steps), self._scheduler),
            crash=self.crash,
        )
        self._driver = self.parts.driver(
            self._host,
            records=self.parts.records,
            steps=self.parts.steps,
            keys=self.parts.keys,
            max_runs=None if max_runs is None else check_limit("max_runs", max_runs),
            max_resting=None if max_resting is None else check_limit("max_resting", max_resting, least=0),
        )
        self.claims = self.parts.claims(self.functions, self._log, self._driver, clock)
        self._log.takes_runs = self.claims.has_room
        self._scheduler.run_rests = self.claims.fill_up
        self._deliveries = Deliveries(self._log, clock)
        self._upkeep = Upkeep(
            self.name,
            journal,
            self.functions,
            lease=self.lease,
            worker=self.worker,
            name=worker_name,
            retention=retention,
            clock=clock,
            awaited=lambda: [*self._awaited, *self._scheduler.awaited_runs],
            shared=self.capabilities.multi_process,
            patience=self.busy_timeout,
        )
        self._log.subscribe(self._upkeep.apply)
        self.lease.lapsed = self._driver.drop_lost
        self._driver.trial_over = self.claims.recover
        self._log.subscribe(self._deliveries.apply)
        self._log.subscribe(self.claims.apply)
        for writer in self.delta_writers:
            writer.place = self._driver.place
        self._crons = None if journal.flow is None else self.parts.crons(self._host, journal.flow, clock)
        self._watcher = Watcher(
            self._host,
            self._driver,
            upkeep=self._upkeep,
            claims=self.claims,
            deliveries=self._deliveries,
            crons=self._crons,
        )

    # -- the worker

    def check_rules(self, function: Function[Any, Any]) -> None:
        super().check_rules(function)
        if function.cron is not None:
            check_cron(function.cron, function.id)
        if function.priority is not None:
            check_priority(function.priority, function.id)

    async def _waiting(self, run_id: str, known: Collection[str]) -> list[WaitingRun]:
        return waiting_behind(self.journal, run_id, known)

    def hears(self, event_name: str) -> bool:
        return is_heard(self.journal, event_name)

    @property
    def running(self) -> bool:
        """Whether its worker is up."""
        return self._up and self._log.crash is None

    @property
    def live_runs(self) -> list[str]:
        """The ids of the runs that are in this worker's memory."""
        return self._driver.live

    async def __aenter__(self) -> Self:
        """Open the journal and go on with unfinished runs."""
        if self._up:
            raise RuntimeError(f"this {self.name} backend is already running; use one 'async with' for each backend")
        if self._log.crash is not None:
            raise RuntimeError("this backend has crashed; open a new one on the same journal")
        self._died = asyncio.Event()
        await patiently(self.journal.start, self.busy_timeout)
        self._up = True
        self.claims.open()
        if not self.is_client:
            self._deliveries.open()
        try:
            self._driver.open()
            if not self.is_client:
                await self._begin_work()
        except BaseException:
            await self._leave()
            raise
        if self._poll is not None:
            self._watcher.begin(self._poll, is_client=self.is_client)
        return self

    async def _begin_work(self) -> None:
        await patiently(self._sign_on, self.busy_timeout)
        self._deliveries.deliver()
        if self._crons is not None:
            await patiently(self._crons.open, self.busy_timeout)
        await patiently(self.claims.claim, self.busy_timeout)
        self._driver.begin()  # not before: whoever opens this may have something to set before its runs go on

    async def _sign_on(self) -> None:
        await self._upkeep.sign_on()
        subscriptions = [Subscription.of(function) for function in self.functions.values()]
        await self._log.sign_on(subscriptions, self.clock.now(), self._upkeep.event_memory)

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop at the next step boundary of each run, then give the runs back."""
        await self._leave()

    async def _leave(self) -> None:
        await self._upkeep.stop()
        cut_off = await self._driver.stop(self.drain_timeout)  # meanwhile the lease is looked after
        await self._watcher.stop()
        self._deliveries.close()
        self.claims.close()
        if self._crons is not None:
            self._crons.close()
        self._up = False
        try:
            if self._log.crash is None and not self.is_client:
                await self._patiently(lambda: self._log.write(lambda: self.journal.let_go(self.worker, cut_off)))
        finally:
            await self.journal.stop()
            if self.deltas is not None:
                await self.deltas.close()

    async def work_until(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(each.wait()) for each in (stop, self._died)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._log.check_alive()

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is written, every task ends where it stands.

        For the harness. Whoever waits for a result gets the signal.
        """
        self._driver.crash(signal)
        self._died.set()

    # -- the port

    def known_functions(self) -> Collection[str]:
        return {*self.functions, *(each.function for each in self.journal.subscriptions())}

    async def drain(self) -> None:
        """Wait until nothing is running, sleeping or scheduled any more: what is left waits for an event."""
        self._check_up("drain")
        await self._scheduler.watch_quiet()

    def now(self) -> float:
        return self.clock.now()

    async def received(self, event: Event) -> Event | None:
        self._check_up("received")
        return self.journal.received(event)

    async def send_events(self, events: Sequence[Event]) -> list[str]:
        self._check_up("send")
        await self._patiently(lambda: self._log.publish(events, self.clock.now()))
        return [event.id or "" for event in events]

    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        self._check_up("runs")
        return find_page(self.journal, where, after, before, limit)

    async def asking_run_ids(self, function: str | None) -> list[str]:
        self._check_up("approvals")
        return list(self.journal.runs_waiting_for(APPROVAL_GIVEN))

    async def question_history(self, run_id: str) -> History:
        await self.view(run_id)
        return History(self.journal.records_of(run_id, QUESTION_STEPS))

    async def tally_runs(self, where: RunFilter) -> dict[RunStatus, int]:
        self._check_up("count_runs")
        return tally(self.journal, where)

    async def start_run(
        self, function: FunctionRef[Any, Any], data: str, run_id: str | None, tags: Sequence[str] = ()
    ) -> RunView:
        self._check_up("start")
        is_new = run_id is None
        run_id = run_id or new_id()
        event = started_event(function, run_id, data, self.environment.observers.traceparent())
        new = replace(self._host.new_run(run_id, function.id, event), tags=tuple(tags))
        row, _ = await self._patiently(lambda: self._log.create(new, self.clock.now()))
        text = new.event if is_new else self.journal.first_record(run_id).output
        if row.function != function.id or text != new.event:
            recorded, asked = json.loads(text or "{}"), json.loads(new.event)
            check_same_start(function, run_id, row.function, recorded.get("data"), asked["data"])
        return view_of(self.journal, row)

    async def view(self, run_id: str) -> RunView:
        self._check_up("run")
        view = find_run(self.journal, run_id)
        if view is None:
            raise RunNotFoundError(run_id)
        return view

    async def wait(self, run_id: str) -> RunView:
        self._awaited[run_id] += 1  # until it has been looked at, nobody forgets it here
        try:
            view = await self.view(run_id)
            while not view.status.final:
                await self._scheduler.watch_end(run_id)
                view = await self.view(run_id)
            return view
        finally:
            self._awaited[run_id] -= 1
            if not self._awaited[run_id]:
                del self._awaited[run_id]

    async def cancel(self, run_id: str) -> None:
        self._check_up("cancel")
        await self._patiently(lambda: self._log.cancel(run_id, self.clock.now()))

    async def retry_run(self, run_id: str) -> RunView:
        self._check_up("retry")
        await self._patiently(lambda: self._log.resume(run_id, self.clock.now()))
        await self.claims.claim()
        return await self.view(run_id)

    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        view = await self.view(run_id)
        event = self.journal.records(run_id)[0].output or ""
        new = self._host.new_run(new_id, view.function, event)
        row, _ = await self._patiently(lambda: self._log.fork(run_id, after, new, self.clock.now()))
        return view_of(self.journal, row)

    async def history(self, run_id: str) -> History:
        await self.view(run_id)
        return History(self.journal.records(run_id))

    async def prune_runs(self, rule: Retention | None) -> Pruned:
        self._check_up("prune")
        return await self._upkeep.prune(rule)

    async def live_workers(self) -> list[WorkerView]:
        self._check_up("workers")
        return self._upkeep.workers()

    async def _patiently(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write for a program, which may wait for the lock of the storage as long as was said."""
        return await patiently(write, own_timeout(self.busy_timeout))

    async def records_since(self, run_id: str, seq: int) -> Sequence[StepRecord]:
        await self.view(run_id)
        return self.journal.records_since(run_id, seq)

    async def watch(self, run_id: str, seconds: float) -> None:
        await self._scheduler.watch_for(run_id, seconds)

    def _check_up(self, what: str) -> None:
        if not self._up:
            raise RuntimeError(f"{what}() needs a running backend: use it inside 'async with backend:'")
        self._log.check_alive()


def check_limit(option: str, limit: int, least: int = 1) -> int:
    """The limit of a worker, if it is one.

    Raises:
        ValueError: If it is no whole number, or less than the least.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < least:
        raise ValueError(f"{option} is a whole number, {least} or more, not {limit!r}")
    return limit
