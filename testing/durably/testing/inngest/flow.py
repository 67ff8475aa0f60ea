"""Flow control: which events start a run, when, and which calls may be made at the same time."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from durably.testing.inngest.clock import Timer, Timers
from durably.testing.inngest.expressions import evaluate
from durably.testing.inngest.runs import EngineRun, seconds_of

__all__ = ["Arrival", "FlowControl", "check_simulated"]

_SIMULATED = frozenset(["id", "name", "triggers", "steps", "cancel", "singleton", "idempotency"]) | frozenset(
    ["concurrency", "debounce", "throttle", "rateLimit", "batchEvents"]
)

Config = dict[str, Any]
Key = tuple[str, str, str]


def check_simulated(function: Config, ignored: frozenset[str]) -> None:
    """Refuse a function with an option that would have no effect here.

    Raises:
        ValueError: If it has one that was not said to be ignored.
    """
    left = {name for name, value in function.items() if value} - _SIMULATED - ignored
    if left:
        raise ValueError(
            f"function {function['id']}: {', '.join(sorted(left))} is not simulated; to run it without, say "
            f"InngestEngine(ignored={sorted(left)})"
        )


@dataclass(frozen=True)
class Arrival:
    """An event that has come for a function.

    Attributes:
        event: The event.
        ulid: The server's id of it.
    """

    event: dict[str, Any]
    ulid: str


@dataclass
class _Waiting:
    """Events of one key that will start a run together, or of which the last will."""

    timer: Timer
    since: float
    arrivals: list[Arrival] = field(default_factory=list)


class FlowControl:
    """The rules of all functions, as the server was seen to apply them.

    Args:
        timers: The time.
        source: Fixes what happens in any order.
        start: Starts a run of a function.
    """

    def __init__(self, timers: Timers, source: random.Random, start: Callable[[Config, list[Arrival]], None]) -> None:
        self._timers = timers
        self._random = source
        self._start = start
        self._starts: dict[Key, list[float]] = defaultdict(list)
        self._next: dict[Key, float] = {}
        self._waiting: dict[Key, _Waiting] = {}
        self._active: dict[Key, int] = defaultdict(int)
        self._queue: list[tuple[EngineRun, Config, Callable[[], None]]] = []

    # -- starting runs

    def arrive(self, function: Config, arrival: Arrival) -> None:
        """An event has come for a function: start a run now, later, with others, or not at all."""
        if not self._within_rate(function, arrival):
            return  # dropped; its sender is not told
        if rule := function.get("debounce"):
            self._debounce(function, rule, arrival)
        elif rule := function.get("batchEvents"):
            self._batch(function, rule, arrival)
        else:
            self._throttled(function, [arrival])

    def _within_rate(self, function: Config, arrival: Arrival) -> bool:
        rule = function.get("rateLimit")
        if not rule:
            return True
        starts = self._starts[_key(function, rule, arrival.event)]
        now = self._timers.time
        starts[:] = [start for start in starts if start > now - seconds_of(rule["period"])]
        if len(starts) >= rule["limit"]:
            return False
        starts.append(now)
        return True

    def _debounce(self, function: Config, rule: Config, arrival: Arrival) -> None:
        key, now = _key(function, rule, arrival.event), self._timers.time
        before = self._waiting.get(key)
        since = now if before is None else before.since
        if before is not None:
            before.timer.cancel()
        due = now + seconds_of(rule["period"])
        if rule.get("timeout"):
            due = min(due, since + seconds_of(rule["timeout"]))
        timer = self._timers.at(due, lambda: self._flush(function, key))
        self._waiting[key] = _Waiting(timer, since, [arrival])  # the last one counts, the others start nothing

    def _batch(self, function: Config, rule: Config, arrival: Arrival) -> None:
        key, now = _key(function, rule, arrival.event), self._timers.time
        if key not in self._waiting:
            timer = self._timers.at(now + seconds_of(rule["timeout"]), lambda: self._flush(function, key))
            self._waiting[key] = _Waiting(timer, now)
        waiting = self._waiting[key]
        waiting.arrivals.append(arrival)
        if len(waiting.arrivals) >= rule["maxSize"]:
            waiting.timer.cancel()
            self._flush(function, key)

    def _flush(self, function: Config, key: Key) -> None:
        arrivals = self._waiting.pop(key).arrivals
        self._random.shuffle(arrivals)  # a batch does not keep the order in which its events were sent
        self._throttled(function, arrivals)

    def _throttled(self, function: Config, arrivals: list[Arrival]) -> None:
        rule = function.get("throttle")
        now = due = self._timers.time
        if rule:
            key = _key(function, rule, arrivals[0].event)
            interval = seconds_of(rule["period"]) / rule["limit"]
            at_once = rule["limit"] + rule.get("burst", 1)
            after = max(self._next.get(key, now), now)
            due = max(now, after - (at_once - 1) * interval)
            self._next[key] = after + interval
        if due > now:
            self._timers.at(due, lambda: self._start(function, arrivals))
        else:
            self._start(function, arrivals)

    # -- calls at the same time

    def enter(self, run: EngineRun, function: Config, act: Callable[[], None]) -> None:
        """Make a call as soon as the function's limits allow it. They count calls under way, not runs."""
        self._queue.append((run, function, act))
        self._admit()

    def leave(self, run: EngineRun, function: Config) -> None:
        """A call has ended."""
        for key, _ in _slots(run, function):
            self._active[key] -= 1
        self._admit()

    def _admit(self) -> None:
        for waiting in self._random.sample(self._queue, len(self._queue)):  # not first come, first served
            run, function, act = waiting
            slots = _slots(run, function)
            if run.live and any(self._active[key] >= limit for key, limit in slots):
                continue
            self._queue.remove(waiting)
            if run.live:
                for key, _ in slots:
                    self._active[key] += 1
                act()


def _slots(run: EngineRun, function: Config) -> list[tuple[Key, int]]:
    rules = function.get("concurrency") or []
    return [
        (_key({"id": function["id"] if rule.get("scope", "fn") == "fn" else rule["scope"]}, rule, run.events[0]), limit)
        for rule in rules
        for limit in [rule["limit"]]
    ]


def _key(function: Config, rule: Config, event: dict[str, Any]) -> Key:
    text = rule.get("key") or ""
    return function["id"], text, json.dumps(evaluate(text, {"event": event})) if text else ""
