"""The replay engine as a backend: a worker that claims runs, looks after its lease, and answers programs."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import SecretStr

from durably.backends.cron_times import check_cron
from durably.backends.replay.clock import Alarm, Clock
from durably.backends.replay.driver import Driver
from durably.backends.replay.events import EventWaiters
from durably.backends.replay.flow.cron import CronTicks
from durably.backends.replay.flow.rules import check_priority
from durably.backends.replay.flow.slots import Slots
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.journal import Changes, Claim, Journal, Subscription
from durably.backends.replay.lease import Lease
from durably.backends.replay.outcome import find_run, view_of
from durably.backends.replay.patience import patiently
from durably.backends.replay.records import Log, RunRecords
from durably.backends.replay.run_list import find_page, is_heard, tally, waiting_behind
from durably.backends.replay.scheduler import Scheduler
from durably.backends.replay.slots import BodySlots
from durably.backends.replay.steps import ReplaySteps
from durably.backends.replay.upkeep import Upkeep
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
from durably.core.call_timeout import own_timeout
from durably.core.deltas import DeltaStore
from durably.core.durations import Duration, duration_seconds
from durably.core.errors import CancelSignal, JournalBusyError, JournalError
from durably.core.history import History, StepRecord
from durably.core.ids import new_id
from durably.core.run_events import started_event
from durably.core.run_filter import FoundRuns, RunFilter
from durably.core.run_input import check_same_start
from durably.core.run_view import RunStatus, RunView
from durably.core.services import EngineServices, WaitingRun
from durably.core.step_keys import KeyedSteps

__all__ = ["Parts", "ReplayBackend"]

T = TypeVar("T")

logger = logging.getLogger("durably")

BUSY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The classes the engine is built from. The harness puts a broken one in the place of one of them.

    Attributes:
        log: How a worker writes to the journal.
        events: Who waits for which event.
        slots: Which bodies run, where a function limits them.
        crons: When the times of crons come.
        host: What the runs of a worker share.
        driver: How runs are driven.
        records: How the records of a run are kept.
        steps: What each kind of step does.
        keys: What the code of runs calls: it numbers steps, and refuses what no engine allows.
    """

    log: type[Log] = Log
    events: type[EventWaiters] = EventWaiters
    slots: type[Slots] = Slots
    crons: type[CronTicks] = CronTicks
    host: type[ReplayHost] = ReplayHost
    driver: type[Driver] = Driver
    records: type[RunRecords] = RunRecords
    steps: type[ReplaySteps] = ReplaySteps
    keys: type[KeyedSteps] = KeyedSteps


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
        self._poller: asyncio.Task[None] | None = None
        self._up = False
        self._delivery = Alarm(clock, self._deliver)
        self._recovery = Alarm(clock, self._recover)
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
        )
        self._log.takes_runs = self._has_room
        self._turned_away = False
        self._claiming = self._claim_again = False
        self._scheduler.run_rests = self._fill_up
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
        self._driver.trial_over = self._recover
        self._log.subscribe(self._arm_for)
        for writer in self.delta_writers:
            writer.place = self._driver.place
        self._crons = None if journal.flow is None else self.parts.crons(self._host, journal.flow, clock)

    # -- the worker

    def check_rules(self, function: Function[Any, Any]) -> None:
        super().check_rules(function)
        if function.cron is not None:
            check_cron(function.cron, function.id)
        if function.priority is not None:
            check_priority(function.priority, function.id)

    def _waiting(self, run_id: str) -> list[WaitingRun]:
        return waiting_behind(self.journal, run_id)

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
        try:
            self._driver.open()
            if not self.is_client:
                await self._begin_work()
        except BaseException:
            await self._leave()
            raise
        if self._poll is not None:
            look = self._look_on if self.is_client else self._watch
            self._poller = asyncio.create_task(look(self._poll))
        return self

    async def _begin_work(self) -> None:
        await patiently(self._sign_on, self.busy_timeout)
        self._deliver()
        if self._crons is not None:
            await patiently(self._crons.open, self.busy_timeout)
        await patiently(self._claim, self.busy_timeout)
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
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        self._delivery.clear()
        self._recovery.clear()
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

    async def _look_on(self, poll: float) -> None:
        """Look at the runs whose ends somebody waits for. It is all that a client does by itself."""
        while True:
            await asyncio.sleep(poll)
            try:
                if self.journal.changed():
                    self._look_at_ends()
            except JournalError as error:
                logger.warning("cannot look after runs now, will try again: %s", error)

    async def _watch(self, poll: float) -> None:
        """Look after the lease, and at what other processes did."""
        while True:
            due = time.monotonic() + poll
            await asyncio.sleep(poll)
            self._upkeep.lag = time.monotonic() - due
            try:
                await self._upkeep.renew()
                await self._claim()
                await self._host.slots.look()
                if self.journal.changed():
                    self._look_around()
            except JournalBusyError:
                continue  # the storage says it itself if that takes long
            except JournalError as error:
                logger.warning("cannot look after runs now, will try again: %s", error)
            self._upkeep.look()

    def claim_runs(self, otherwise: Callable[[BaseException], None] | None = None) -> asyncio.Future[Claim] | None:
        """Take up the live runs that no worker has, as far as there is room for them.

        Args:
            otherwise: Called with the error if that cannot be written.

        Returns:
            What it takes; ``None`` if there is nothing to take, or it is at it.

        Raises:
            JournalError: If it cannot be looked.
        """
        room = self._room
        if room == 0 or self._claiming:
            self._claim_again = self._claiming
            return None
        served, now, unfit, moment = list(self.functions), time.time(), self._driver.unfit, self.clock.now()
        suspects = 0 if self._driver.on_trial else 1
        nothing = self.journal.leaves(self.worker, served, now, unfit, moment=moment, suspects=suspects)
        if nothing is not None:
            self._claimed(room, nothing)
            return None

        def refused(error: BaseException) -> None:
            self._claiming = False
            if otherwise is not None:
                otherwise(error)

        self._claiming = True
        take = partial(self.journal.claim, self.worker, served, now, unfit)
        return self._log.write(
            lambda: take(moment=moment, suspects=suspects, limit=room), partial(self._claimed, room), refused
        )

    def _claimed(self, room: int | None, claim: Claim) -> None:
        again, self._claiming, self._claim_again = self._claim_again, False, False
        self._turned_away = room is not None and len(claim.runs) >= room  # there may be more
        for row in claim.runs:
            self._driver.spawn(row)
        self._recovery.set(claim.due)
        if again:
            self._fill_up()

    async def _claim(self) -> None:
        claim = self.claim_runs()
        if claim is not None:
            await claim

    def _recover(self) -> None:
        """Take up the runs whose pause after their crashes is over."""
        if self._log.crash is not None:
            return
        try:
            self.claim_runs(self._not_recovered)
        except JournalError as error:
            self._not_recovered(error)

    def _not_recovered(self, error: BaseException) -> None:
        if isinstance(error, JournalError):
            logger.warning("cannot take up runs now, will try again: %s", error)
            self._recovery.set(self.clock.now() + 1)

    @property
    def _room(self) -> int | None:
        """How many more runs it takes now, when those have begun that are being created; ``None`` for any number."""
        room = self._driver.room
        return None if room is None else max(0, room - self._log.placing)

    def _has_room(self) -> bool:
        has_room = self._room != 0
        self._turned_away = self._turned_away or not has_room
        return has_room

    def _fill_up(self) -> None:
        """Take up runs for which there was no room before."""
        if not self._turned_away or self._room == 0 or self._log.crash is not None:
            return
        try:
            self.claim_runs(self._not_filled)
        except JournalError as error:
            self._not_filled(error)

    def _not_filled(self, error: BaseException) -> None:
        self._turned_away = True  # the next look takes them up

    def _look_around(self) -> None:
        """Find what concerns the runs that wait here, after another process wrote to the journal."""
        self._look_at_ends()
        self._host.events.look()
        for run_id in self._driver.live:
            row = self.journal.get(run_id)
            if row is not None and row.status is RunStatus.CANCELLED:
                self._driver.interrupt(run_id, CancelSignal)
        self._arm(self.journal.next_moment())
        if self._crons is not None:
            self._crons.look()

    def _look_at_ends(self) -> None:
        for run_id in self._scheduler.awaited_runs:
            row = self.journal.get(run_id)
            if row is None or row.status.final:  # who waits for a run that is not there any more is told so
                self._scheduler.run_ended(run_id)

    # -- scheduled events

    def _arm_for(self, changes: Changes) -> None:
        if changes.scheduled is not None:
            self._arm(changes.scheduled)
        if changes.claimable and self._up:
            self._turned_away = True
            self._fill_up()

    def _arm(self, due: float | None) -> None:
        if self._up and not self.is_client:
            self._delivery.set(due)

    def _deliver(self) -> None:
        if self._log.crash is not None:
            return
        self._log.deliver(self.clock.now(), self._delivered, self._not_delivered)

    def _delivered(self) -> None:
        try:
            self._arm(self.journal.next_moment())
        except JournalError as error:
            self._not_delivered(error)

    def _not_delivered(self, error: BaseException) -> None:
        if isinstance(error, JournalError):
            logger.warning("cannot deliver scheduled events now, will try again: %s", error)
            self._arm(self.clock.now() + 1)

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
        return next(
            (each.event for each in self.journal.events_since(0, event.name) if each.event.id == event.id), None
        )

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
        await self._claim()
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


def check_limit(option: str, limit: int) -> int:
    """The limit of a worker, if it is one.

    Raises:
        ValueError: If it is no whole number from 1.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"{option} is a whole number, 1 or more, not {limit!r}")
    return limit
