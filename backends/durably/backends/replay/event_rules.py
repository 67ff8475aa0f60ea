"""How events are received and start functions, at once, at a later time or in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from durably.backends.replay.flow.batches import Batches, FullBatch
from durably.backends.replay.flow.rules import StartRules
from durably.backends.replay.journal_types import NO_RULES, Changes, NewRun, Subscription
from durably.backends.replay.run_rules import RunRules
from durably.core import Event, Singleton
from durably.core.errors import MissingKeyError
from durably.core.ids import derive_id

__all__ = ["EventRules"]


class EventRules(RunRules):
    """Receives events, and starts the functions that they trigger."""

    def publish(self, events: Sequence[Event], *, worker: str | None, served: Iterable[str], now: float) -> Changes:
        """Receive events from outside. An id that was seen before is dropped."""
        changes = Changes()
        with self.transaction():
            self.receive_all(events, worker, served, now, changes)
        return changes

    def deliver(self, *, worker: str | None, served: Iterable[str], now: float) -> Changes:
        """Deliver the scheduled events that are due, and let runs begin whose time has come."""
        changes = Changes()
        with self.transaction():
            for event in self.take_due(now):
                self.receive(event, worker, served, now, changes)
            self.admission.deliver(now, changes)
            self._flush(worker, served, now, changes)
        return changes

    def next_moment(self) -> float | None:
        """When `deliver` has something to do next, in seconds since 1970; ``None`` for never."""
        held = None if self.flow is None else self.flow.next_due(["held", "batch"])
        return min((each for each in (self.next_due(), held) if each is not None), default=None)

    def receive_all(
        self, events: Sequence[Event], worker: str | None, served: Iterable[str], now: float, changes: Changes
    ) -> None:
        """Receive events within a transaction; those of a later time are kept until then."""
        for event in events:
            if event.ts is not None and event.ts > now:
                if self.schedule(event):
                    changes.scheduled = min(event.ts, changes.scheduled or event.ts)
            else:
                self.receive(event, worker, served, now, changes)

    def receive(self, event: Event, worker: str | None, served: Iterable[str], now: float, changes: Changes) -> None:
        """Log an event within a transaction, and start the functions that it triggers."""
        received = self.log(event, now)
        if received is None:
            return
        changes.received.append(received)
        self.trigger(event, worker, served, now, changes)

    def trigger(self, event: Event, worker: str | None, served: Iterable[str], now: float, changes: Changes) -> None:
        """Start the functions that an event triggers, within a transaction."""
        for subscription in self.subscribers(event.name):
            if subscription.rules.batch is None:
                new = self._triggered(subscription.function, event, subscription.singleton, subscription.rules)
                self.add_run(new, worker if new.function in served else None, now, changes)
            else:
                self._gather(subscription, event, worker, served, now, changes)

    def _triggered(self, function: str, event: Event, singleton: Singleton | None, rules: StartRules) -> NewRun:
        run_id = derive_id("run", event.id or "", function)
        return NewRun(id=run_id, function=function, event=event.model_dump_json(), singleton=singleton, rules=rules)

    def _gather(
        self,
        each: Subscription,
        event: Event,
        worker: str | None,
        served: Iterable[str],
        now: float,
        changes: Changes,
    ) -> None:
        """Add an event to the batch of a function, which starts a run when it is full."""
        assert each.rules.batch is not None
        self._flush(worker, served, now, changes)  # a batch whose time was up before this event begins without it
        try:
            full, due = self._batches.add(each.function, event, each.rules.batch, each.rules, each.singleton, now)
        except MissingKeyError as error:
            alone = event.model_copy(update={"data": [event.data]})
            self.add_failed(self._triggered(each.function, alone, None, NO_RULES), error, now, changes)
            return
        if full is None:
            changes.scheduled = min(due, changes.scheduled or due)
        else:
            self._start_batch(full, worker, served, now, changes)

    def _flush(self, worker: str | None, served: Iterable[str], now: float, changes: Changes) -> None:
        for full in self._batches.take_due(now) if self.flow is not None else []:
            self._start_batch(full, worker, served, now, changes)

    def _start_batch(
        self, full: FullBatch, worker: str | None, served: Iterable[str], now: float, changes: Changes
    ) -> None:
        new = self._triggered(full.function, full.event, full.singleton, full.rules)
        self.add_run(new, worker if new.function in served else None, now, changes)

    @property
    def _batches(self) -> Batches:
        assert self.flow is not None
        return Batches(self.flow)
