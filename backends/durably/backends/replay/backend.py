"""The replay engine as a backend: it answers programs, and has a worker.

Does not own: the parts of the worker (``worker.py``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import SecretStr

from durably.backends.cron_times import check_cron
from durably.backends.replay.clock import Clock
from durably.backends.replay.flow.rules import check_priority
from durably.backends.replay.journal import Journal
from durably.backends.replay.outcome import find_run, view_of
from durably.backends.replay.parts import Parts
from durably.backends.replay.run_list import find_page, is_heard, tally, waiting_behind
from durably.backends.replay.worker import ReplayWorker, WorkerOptions
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
from durably.core.approval_desk import QUESTION_STEPS, AskingRun
from durably.core.deltas import DeltaStore
from durably.core.durations import Duration, duration_seconds
from durably.core.history import History, StepRecord
from durably.core.ids import new_id
from durably.core.mistakes import check_event_loop, check_objects
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
        retained = {"retention": (Retention, 'Retention(age="30 days")')}
        check_objects(type(self).__name__, {"retention": retention}, retained)
        options = WorkerOptions(
            evict=evict,
            seed=seed,
            poll=poll,
            name=worker_name,
            max_runs=max_runs,
            max_resting=max_resting,
            max_steps=max_steps,
            retention=retention,
            patience=duration_seconds(busy_timeout, f"{type(self).__name__}: busy_timeout"),
        )
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
        self._died = asyncio.Event()
        self._awaited: Counter[str] = Counter()
        self._worker = ReplayWorker(
            self.parts,
            options,
            engine=self.name,
            shared=self.capabilities.multi_process,
            journal=journal,
            clock=clock,
            functions=self.functions,
            environment=self.environment,
            awaited=lambda: self._awaited,
            crash=self.crash,
        )
        self.worker = self._worker.id
        self.lease = self._worker.lease
        self.claims = self._worker.claims
        for writer in self.delta_writers:
            writer.place = self._worker.driver.place

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
        return self._worker.up and self._worker.log.crash is None

    @property
    def live_runs(self) -> list[str]:
        """The ids of the runs that are in this worker's memory."""
        return self._worker.driver.live

    async def __aenter__(self) -> Self:
        """Open the journal and go on with unfinished runs."""
        check_event_loop()
        if self._worker.up:
            raise RuntimeError(f"this {self.name} backend is already running; use one 'async with' for each backend")
        if self._worker.log.crash is not None:
            raise RuntimeError("this backend has crashed; open a new one on the same journal")
        self._died = asyncio.Event()
        try:
            await self._worker.open(is_client=self.is_client)
        except BaseException:
            if self._worker.up:
                await self._leave()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop at the next step boundary of each run, then give the runs back."""
        await self._leave()

    async def _leave(self) -> None:
        try:
            await self._worker.close(self.drain_timeout, is_client=self.is_client)
        finally:
            if self.deltas is not None:
                await self.deltas.close()

    async def work_until(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(each.wait()) for each in (stop, self._died)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._worker.log.check_alive()

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is written, every task ends where it stands.

        For the harness. Whoever waits for a result gets the signal.
        """
        self._worker.driver.crash(signal)
        self._died.set()

    # -- the port

    def known_functions(self) -> Collection[str]:
        return {*self.functions, *(each.function for each in self.journal.subscriptions())}

    async def drain(self) -> None:
        """Wait until nothing is running, sleeping or scheduled any more: what is left waits for an event."""
        self._check_up("drain")
        await self._worker.scheduler.watch_quiet()

    def now(self) -> float:
        return self.clock.now()

    async def received(self, event: Event) -> Event | None:
        self._check_up("received")
        return self.journal.received(event)

    async def send_events(self, events: Sequence[Event]) -> list[str]:
        self._check_up("send")
        await self._worker.patiently(lambda: self._worker.log.publish(events, self.clock.now()))
        return [event.id or "" for event in events]

    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        self._check_up("runs")
        return await find_page(self.journal, where, after, before, limit)

    async def asking_runs(self, function: str | None) -> list[AskingRun]:
        self._check_up("approvals")
        found: list[AskingRun] = []
        for page in self.journal.event_waits(APPROVAL_GIVEN):
            # A fork has records that are older than it is.
            since = (-math.inf if each.is_fork else each.created_at for each in page)
            found += [AskingRun(each.run_id, begin, each.until) for each, begin in zip(page, since, strict=True)]
            await asyncio.sleep(0)
        return found

    async def question_history(self, run_id: str) -> History:
        self._check_up("run")
        if self.journal.get(run_id) is None:
            raise RunNotFoundError(run_id)
        return History(self.journal.records_of(run_id, QUESTION_STEPS))

    async def tally_runs(self, where: RunFilter) -> dict[RunStatus, int]:
        self._check_up("count_runs")
        return await tally(self.journal, where)

    async def start_run(
        self, function: FunctionRef[Any, Any], data: str, run_id: str | None, tags: Sequence[str] = ()
    ) -> RunView:
        self._check_up("start")
        is_new = run_id is None
        run_id = run_id or new_id()
        event = started_event(function, run_id, data, self.environment.observers.traceparent())
        new = replace(self._worker.host.new_run(run_id, function.id, event), tags=tuple(tags))
        row, _ = await self._worker.patiently(lambda: self._worker.log.create(new, self.clock.now()))
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
                await self._worker.scheduler.watch_end(run_id)
                view = await self.view(run_id)
            return view
        finally:
            self._awaited[run_id] -= 1
            if not self._awaited[run_id]:
                del self._awaited[run_id]

    async def cancel(self, run_id: str) -> None:
        self._check_up("cancel")
        await self._worker.patiently(lambda: self._worker.log.cancel(run_id, self.clock.now()))

    async def retry_run(self, run_id: str) -> RunView:
        self._check_up("retry")
        await self._worker.patiently(lambda: self._worker.log.resume(run_id, self.clock.now()))
        await self.claims.claim()
        return await self.view(run_id)

    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        view = await self.view(run_id)
        event = self.journal.records(run_id)[0].output or ""
        new = self._worker.host.new_run(new_id, view.function, event)
        row, _ = await self._worker.patiently(lambda: self._worker.log.fork(run_id, after, new, self.clock.now()))
        return view_of(self.journal, row)

    async def history(self, run_id: str) -> History:
        await self.view(run_id)
        return History(self.journal.records(run_id))

    async def prune_runs(self, rule: Retention | None) -> Pruned:
        self._check_up("prune")
        return await self._worker.upkeep.prune(rule)

    async def live_workers(self) -> list[WorkerView]:
        self._check_up("workers")
        return self._worker.upkeep.workers()

    async def records_since(self, run_id: str, seq: int) -> Sequence[StepRecord]:
        await self.view(run_id)
        return self.journal.records_since(run_id, seq)

    async def watch(self, run_id: str, seconds: float) -> None:
        await self._worker.scheduler.watch_for(run_id, seconds)

    def _check_up(self, what: str) -> None:
        if not self._worker.up:
            raise RuntimeError(f"{what}() needs a running backend: use it inside 'async with backend:'")
        self._worker.log.check_alive()
