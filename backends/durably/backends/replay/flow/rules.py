"""The rules that decide when a run begins: those of a function, and what they come to for one run."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Literal, Self

from durably.core import Event, Function, Singleton
from durably.core.errors import UnsupportedFeatureError
from durably.core.flow import Batch, Debounce, Priority, RateLimit, Throttle, period_seconds
from durably.core.flow_support import FLOW_CONTROL, emulated
from durably.core.input_paths import key_value, number_at

__all__ = [
    "FLOW_RULES",
    "ONCE_SECONDS",
    "Limit",
    "Line",
    "Plan",
    "Quiet",
    "StartRules",
    "Turn",
    "check_priority",
    "gate_of",
    "plan_for",
]

FLOW_RULES = {
    **dict.fromkeys(FLOW_CONTROL, emulated()),
    "concurrency": emulated("the environment and the account are all workers of the file"),
    "priority": emulated("a number of seconds, or the dotted path of one; no expressions"),
}
"""What the engine makes of each rule, where its journal has a flow store."""

_PATH = re.compile(r"[-+]?\d+(\.\d+)?|\w[\w-]*(\.\w[\w-]*)*")

ONCE_SECONDS = timedelta(days=1).total_seconds()
"""How long ``idempotency`` remembers a value, as Inngest does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRules:
    """The rules of a function, without ``singleton``; a journal keeps them for workers that do not know it.

    Of ``concurrency`` it has the keys, without which a run is not to begin.
    """

    debounce: Debounce | None = None
    throttle: Throttle | None = None
    rate_limit: RateLimit | None = None
    batch: Batch | None = None
    priority: Priority | None = None
    idempotency: str = ""
    concurrency: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Function[Any, Any]) -> Self:
        """The rules of a function."""
        return cls(
            debounce=function.debounce,
            throttle=function.throttle,
            rate_limit=function.rate_limit,
            batch=function.batch,
            priority=function.priority,
            idempotency=function.idempotency or "",
            concurrency=tuple(each.key for each in function.concurrency if each.key),
        )

    def to_json(self) -> str | None:
        """As JSON text; ``None`` for a function without rules."""
        given = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(given, default=timedelta.total_seconds) if given else None

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        """What `to_json` wrote."""
        kinds = {"debounce": Debounce, "throttle": Throttle, "rate_limit": RateLimit, "batch": Batch}
        data = json.loads(text or "{}")
        rules = {name: kind(**data[name]) for name, kind in kinds.items() if name in data}
        if "priority" in data:
            rules["priority"] = Priority(data["priority"]["run"])
        concurrency = tuple(data.get("concurrency", ()))
        return cls(idempotency=data.get("idempotency", ""), concurrency=concurrency, **rules)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many starts in a period."""

    gate: str
    limit: int
    period: float


@dataclass(frozen=True, slots=True)
class Quiet:
    """A run begins once nothing else has come for a period; or, after `timeout`, without that."""

    gate: str
    period: float
    timeout: float | None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One live run for a key; the others are cancelled, skipped or stand in line."""

    gate: str
    key: str
    mode: Literal["cancel", "skip", "queue"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One run an interval; so many at once if there were none before."""

    gate: str
    interval: float
    at_once: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the rules of its function come to for one run.

    Attributes:
        function: The id of its function.
        rank: Its place in every queue: when it arrived, less the seconds of its priority.
        limits: What it is counted by.
        quiet: Its debounce, or ``None``.
        line: Its singleton, or ``None``.
        turn: Its throttle, or ``None``.
    """

    function: str
    rank: float
    limits: tuple[Limit, ...] = ()
    quiet: Quiet | None = None
    line: Line | None = None
    turn: Turn | None = None

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """What `to_data` gave."""
        quiet, line, turn = data["quiet"], data["line"], data["turn"]
        return cls(
            function=data["function"],
            rank=data["rank"],
            limits=tuple(Limit(**each) for each in data["limits"]),
            quiet=quiet and Quiet(**quiet),
            line=line and Line(**line),
            turn=turn and Turn(**turn),
        )


def check_priority(priority: Priority, function: str) -> None:
    """Refuse a priority that is no number and no path: this engine evaluates no expressions.

    Raises:
        UnsupportedFeatureError: If it is an expression.
    """
    if not _PATH.fullmatch(priority.run.strip()):
        raise UnsupportedFeatureError(
            backend="replay",
            feature=f"{priority} on function {function!r}",
            reason="it evaluates no expressions; write a number of seconds, or the dotted path of one in the input",
        )


def gate_of(rule: str, function: str, key: str = "") -> str:
    """The name of a gate: runs of one function with one value at the rule's key, as JSON text, go through the same."""
    return json.dumps([rule, function, key])


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of one run."""

    function: str
    event: Event

    def at(self, option: str, path: str) -> str:
        return key_value(self.event, path, function=self.function, option=option) if path else ""

    def gate(self, option: str, path: str) -> str:
        return gate_of(option, self.function, self.at(option, path))


def plan_for(function: str, event: Event, rules: StartRules, singleton: Singleton | None, now: float) -> Plan:
    """What the rules of a function come to for a run that an event starts.

    Raises:
        MissingKeyError: If the event has no value at the key of one of them.
    """
    keys = _Keys(function, event)
    for path in rules.concurrency:
        keys.at("concurrency", path)  # missed now, and not by each of its bodies
    plan = Plan(function=function, rank=now)
    if rules.priority is not None:
        path = rules.priority.run.removeprefix("event.")
        plan = replace(plan, rank=now - number_at(event, path, function=function, option="priority"))
    if rules.idempotency:
        once = Limit(keys.gate("idempotency", rules.idempotency), 1, ONCE_SECONDS)
        plan = replace(plan, limits=(once,))
    if (rate := rules.rate_limit) is not None:
        limit = Limit(keys.gate("rate_limit", rate.key), rate.limit, period_seconds(rate.period))
        plan = replace(plan, limits=(*plan.limits, limit))
    if (debounce := rules.debounce) is not None:
        timeout = None if debounce.timeout is None else period_seconds(debounce.timeout)
        quiet = Quiet(keys.gate("debounce", debounce.key), period_seconds(debounce.period), timeout)
        plan = replace(plan, quiet=quiet)
    if singleton is not None:
        key = keys.at("singleton", singleton.key)
        plan = replace(plan, line=Line(gate_of("singleton", function, key), key, singleton.mode))
    if (throttle := rules.throttle) is not None:
        interval = period_seconds(throttle.period) / throttle.limit
        turn = Turn(keys.gate("throttle", throttle.key), interval, throttle.limit + throttle.burst)
        plan = replace(plan, turn=turn)
    return plan
