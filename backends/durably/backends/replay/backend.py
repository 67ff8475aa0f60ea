"""The replay engine: a worker that claims runs, looks after its lease, and acts on what changed.

Three layers, each in its file: who waits for what (`waits.py`), how one run is driven (`driver.py`), and this worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import SecretStr

from durably.backends.replay.clock import Clock, Timer
from durably.backends.replay.driver import Driver
from durably.backends.replay.journal import Changes, Journal, NewRun, RunRow, Subscription
from durably.core import DurablyError, Event, Function, FunctionRef, Run, RunNotFoundError
from durably.core.backend import RunStatus, RunView
from durably.core.errors import CancelSignal, JournalError, SuspendSignal
from durably.core.history import History
from durably.core.ids import derive_id, new_id

__all__ = ["ReplayBackend"]

logger = logging.getLogger("durably")

LEASE_SECONDS = 15.0
GRACE_SECONDS = 30.0


class ReplayBackend(Driver):
    """What the memory and the SQLite backends share: everything but the storage.

    Args:
        functions: What it runs.
        journal: Where runs are kept.
        clock: Where time comes from.
        threads: Whether sync bodies run in threads.
        seed: Fixes the order of concurrent branches, or ``None`` to leave it to the event loop.
        evict: ``"always"`` replays a run from the start after each step.
        poll: Seconds between looks at what other processes did, or ``None`` if there can be none.
        grace: Seconds a running body is given to end when the worker stops.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return; left out, what the backend says it can keep.
    """

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
        grace: float = GRACE_SECONDS,
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
    ) -> None:
        if evict not in ("never", "always"):
            raise ValueError(f"evict={evict!r}: use 'never' or 'always'")
        super().__init__(
            functions,
            journal=journal,
            clock=clock,
            threads=threads,
            seed=seed,
            evict=evict == "always",
            max_payload_bytes=max_payload_bytes,
            resources=resources,
            secrets=secrets,
        )
        self.grace = grace
        self._poll = poll
        self._up = False
        self._delivery: Timer | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._poller: asyncio.Task[None] | None = None

    # -- the worker

    async def __aenter__(self) -> Self:
        """Open the journal and go on with unfinished runs."""
        if self._up:
            raise RuntimeError(f"this {self.name} backend is already running; use one 'async with' for each backend")
        if self._crash is not None:
            raise RuntimeError("this backend has crashed; open a new one on the same journal")
        self.journal.open()
        self._up = True
        # Runs get a context of their own: one that is started inside a body must not seem to be inside it.
        self._context = contextvars.Context()
        self.journal.register([Subscription.of(function) for function in self.functions.values()])
        self._lease()
        self._deliver()
        self._claim()
        if self._poll is not None:
            self._poller = asyncio.create_task(self._watch(self._poll))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop at the next step boundary of each run, then give the runs back."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        self._stopping = True
        for execution in list(self._live.values()):
            execution.interrupt(SuspendSignal)
        late = await self._wait_for_tasks()
        self._arm_delivery(None)
        self._up = self._stopping = False
        try:
            if self._crash is None and not late:
                self.journal.release(self.worker)
            elif self._crash is None:
                self.journal.bury(self.worker)
        finally:
            self.journal.close()

    async def _wait_for_tasks(self) -> bool:
        """Let bodies that are running end; ``True`` if some did not in time and were cut off."""
        tasks = set(self._tasks.values())
        _, late = await asyncio.wait(tasks, timeout=self.grace) if tasks else (tasks, set())
        for task in late:
            logger.warning("a body did not end within %g seconds of the stop; it will run again", self.grace)
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return bool(late)

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is written, every task ends where it stands.

        For the harness. Whoever waits for a result gets the signal.
        """
        if self._crash is not None:
            return
        self._crash = signal
        self.journal.bury(self.worker)
        current = asyncio.current_task()
        for task in self._tasks.values():
            if task is not current:
                task.cancel()
        for future in [*(each for ends in self._ends.values() for each in ends), *self._idle]:
            if not future.done():
                future.set_exception(signal)

    async def _watch(self, poll: float) -> None:
        """Look after the lease, and at what other processes did."""
        while True:
            await asyncio.sleep(poll)
            try:
                if time.time() > self._leased_at + LEASE_SECONDS / 3:
                    self._lease()
                self._claim()
                if self.journal.changed():
                    self._look_around()
            except JournalError as error:
                logger.warning("cannot look after runs now, will try again: %s", error)

    def _lease(self) -> None:
        self._leased_at = time.time()
        self.journal.lease(self.worker, self._leased_at + LEASE_SECONDS)

    def _claim(self) -> None:
        for row in self.journal.claim(self.worker, list(self.functions), time.time()):
            self._spawn(row)

    def _look_around(self) -> None:
        """Another process wrote to the journal: find what concerns the runs that wait here."""
        for run_id in list(self._ends):
            row = self.journal.get(run_id)
            if row is not None and row.status.final:
                self._ended(run_id)
        for waiting in list(self._waiting):
            event = self.find_event(waiting)
            if event is not None:
                self.wake(waiting.future, event)
        for run_id, execution in list(self._live.items()):
            row = self.journal.get(run_id)
            if row is not None and row.status is RunStatus.CANCELLED:
                execution.interrupt(CancelSignal)
        self._arm_delivery(self.journal.next_due())

    def _spawn(self, row: RunRow) -> None:
        if not self._up or self._stopping or row.id in self._tasks:
            return
        self.active += 1
        task = asyncio.get_running_loop().create_task(self._drive(row), context=self._context.copy())
        self._tasks[row.id] = task
        task.add_done_callback(lambda task: self._forget(row.id, task))

    def _forget(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(run_id, None)
        self._live.pop(run_id, None)
        self.active -= 1
        if not task.cancelled() and (error := task.exception()) is not None and self._crash is None:
            logger.error("run %s: the engine failed; the run stays where it was", run_id, exc_info=error)
            self.crash(error)
        self.rest()

    # -- what changed

    def _apply(self, changes: Changes) -> None:
        for run_id in changes.cancelled:
            execution = self._live.get(run_id)
            if execution is not None:
                execution.interrupt(CancelSignal)
            self._ended(run_id)
        for received in changes.received:
            for waiting in list(self._waiting):
                if waiting.wants(received.event, received.seq, received.at):
                    self.wake(waiting.future, received.event)
        for row in changes.created:
            self._spawn(row)
        if changes.scheduled is not None:
            self._arm_delivery(changes.scheduled)

    def _arm_delivery(self, due: float | None) -> None:
        """Have one timer, for the next scheduled event."""
        if self._delivery is not None and not self._delivery.cancelled:
            if due is not None and self._delivery.when <= due and not self._stopping:
                return
            self._delivery.cancel()
        if due is not None and self._up and not self._stopping:
            self._delivery = self.clock.call_at(due, self._deliver)

    def _deliver(self) -> None:
        if self._crash is not None:
            return
        try:
            self._apply(self.journal.deliver(worker=self.worker, served=self.functions, now=self.clock.now()))
            self._arm_delivery(self.journal.next_due())
        except JournalError as error:
            logger.warning("cannot deliver scheduled events now, will try again: %s", error)
            self._arm_delivery(self.clock.now() + 1)

    # -- the port

    async def drain(self) -> None:
        """Wait until nothing is running, sleeping or scheduled any more: what is left waits for an event."""
        self._running("drain")
        await self._outside(self._idle.add, self._idle.discard)

    async def send(self, *events: Event) -> list[str]:
        self._running("send")
        named = [event if event.id else event.model_copy(update={"id": new_id()}) for event in events]
        self._apply(
            self.journal.publish(
                [self._redacted(event) for event in named],
                worker=self.worker,
                served=self.functions,
                now=self.clock.now(),
            )
        )
        return [event.id or "" for event in named]

    async def runs(
        self, *, function: FunctionRef[Any, Any] | str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[Run[Any]]:
        self._running("runs")
        name = function.id if isinstance(function, FunctionRef) else function
        return [
            Run(self, self._find(row.function), self._view_of(row)) for row in self.journal.rows(name, status, limit)
        ]

    async def _start(self, function: FunctionRef[Any, Any], data: str, run_id: str | None) -> RunView:
        self._running("start")
        run_id = run_id or new_id()
        event = f'{{"name":"durably/function.started","data":{data},"id":"{derive_id("start", run_id, "")}"}}'
        new = NewRun(
            id=run_id, function=function.id, event=self.redactor.text(event), singleton=self.singleton_of(function.id)
        )
        served = function.id in self.functions
        row, changes = self.journal.create(new, worker=self.worker if served else None, now=self.clock.now())
        if row.function != function.id:
            raise DurablyError(f"run {run_id!r} belongs to function {row.function!r}, not {function.id!r}")
        self._apply(changes)
        return self._view_of(row)

    async def _view(self, run_id: str) -> RunView:
        self._running("run")
        row = self.journal.get(run_id)
        if row is None:
            raise RunNotFoundError(run_id)
        return self._view_of(row)

    async def _wait(self, run_id: str) -> RunView:
        view = await self._view(run_id)
        while not view.status.final:
            ends = self._ends.setdefault(run_id, set())
            await self._outside(ends.add, ends.discard)
            view = await self._view(run_id)
        return view

    async def _cancel(self, run_id: str) -> None:
        self._running("cancel")
        self._apply(self.journal.cancel(run_id, self.clock.now()))

    async def _history(self, run_id: str) -> History:
        self._running("history")
        if self.journal.get(run_id) is None:
            raise RunNotFoundError(run_id)
        return History(self.journal.records(run_id))

    def _running(self, what: str) -> None:
        if not self._up:
            raise RuntimeError(f"{what}() needs a running backend: use it inside 'async with backend:'")
        self._alive()
