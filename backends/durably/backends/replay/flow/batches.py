"""Batches: one run for several events, gathered in the journal until there are enough or the time is up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durably.backends.replay.flow.rules import StartRules, gate_of
from durably.backends.replay.flow.store import Entry, FlowStore
from durably.core import Event, Singleton
from durably.core.flow import Batch, period_seconds
from durably.core.input_paths import key_value

__all__ = ["Batches", "FullBatch"]


@dataclass(frozen=True, slots=True)
class FullBatch:
    """Events that start one run together.

    Attributes:
        function: The id of the function.
        event: One event with the list of their data, under the name and the id of the first.
        rules: The rules of the function.
        singleton: Its singleton, or ``None``.
    """

    function: str
    event: Event
    rules: StartRules
    singleton: Singleton | None


class Batches:
    """The batches that are being filled.

    Args:
        store: Where their events are kept.
    """

    def __init__(self, store: FlowStore) -> None:
        self._store = store

    def add(
        self, function: str, event: Event, batch: Batch, rules: StartRules, singleton: Singleton | None, now: float
    ) -> tuple[FullBatch | None, float]:
        """Add an event to the batch of its key.

        Returns:
            The batch, if it is full now, and when the time of the batch is up, in seconds since 1970.

        Raises:
            MissingKeyError: If the event has no value at the key.
        """
        key = key_value(event, batch.key, function=function, option="batch") if batch.key else ""
        gate = gate_of("batch", function, key)
        filled = self._store.find("batch", gate)
        if filled is None:
            rule = singleton and [singleton.key, singleton.mode]
            value = {"function": function, "rules": rules.to_json(), "singleton": rule}
            due = now + period_seconds(batch.timeout)
            filled = Entry(kind="batch", id=gate, gate=gate, due=due, value=value)
            self._store.put(filled)
        data = event.model_dump(mode="json")
        self._store.put(Entry(kind="batched", id=f"{gate} {event.id}", gate=gate, rank=now, value=data))
        full = self._store.count("batched", gate) >= batch.max_size
        return (self._take(filled) if full else None), filled.due or now

    def take_due(self, now: float) -> list[FullBatch]:
        """Take out the batches whose time is up."""
        return [self._take(each) for each in self._store.due("batch", now)]

    def _take(self, filled: Entry) -> FullBatch:
        """Take a batch out; the next event of its key begins a new one."""
        entries = self._store.list("batched", filled.gate)
        for each in entries:
            self._store.drop("batched", each.id)
        self._store.drop("batch", filled.id)
        events = [Event.model_validate(each.value) for each in entries]
        value: dict[str, Any] = filled.value
        return FullBatch(
            value["function"],
            Event(events[0].name, [each.data for each in events], id=events[0].id),
            StartRules.from_json(value["rules"]),
            value["singleton"] and Singleton(*value["singleton"]),
        )
