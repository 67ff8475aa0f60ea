"""Flow control: options that an engine applies before it lets a run start or go on. Few engines have them.

Every key is a dotted path in the input, such as ``"user.id"``: the rule then holds for each of its values by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from durably.core.errors import DefinitionError

__all__ = ["Batch", "Concurrency", "Debounce", "Priority", "RateLimit", "Throttle"]


def _positive(name: str, **numbers: int) -> None:
    for field, value in numbers.items():
        if value < 1:
            raise DefinitionError(f"{name}: {field} must be 1 or more, not {value}")


def _whole(name: str, duration: timedelta | None) -> None:
    if duration is not None and (duration < timedelta(seconds=1) or duration % timedelta(seconds=1)):
        raise DefinitionError(f"{name}: {duration} is not a whole number of seconds, at least one")


@dataclass(frozen=True, kw_only=True)
class Concurrency:
    """How many steps of a function may run at the same time; the others wait.

    Args:
        limit: How many.
        key: See the module.
        scope: What is counted: this function's steps, or all that share the key.
    """

    limit: int
    key: str = ""
    scope: Literal["fn", "env", "account"] = "fn"

    def __post_init__(self) -> None:
        _positive("Concurrency", limit=self.limit)


@dataclass(frozen=True, kw_only=True)
class Debounce:
    """Start one run with the last event, once no further one has come for a while.

    Args:
        period: How long.
        key: See the module.
        timeout: Start after this long even if events keep coming.
    """

    period: timedelta
    key: str = ""
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        _whole("Debounce", self.period)
        _whole("Debounce", self.timeout)


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """Start so many runs in a period; later ones wait.

    Args:
        limit: How many.
        period: In how long.
        burst: How many more may start at once.
        key: See the module.
    """

    limit: int
    period: timedelta
    burst: int = 1
    key: str = ""

    def __post_init__(self) -> None:
        _positive("Throttle", limit=self.limit, burst=self.burst)
        _whole("Throttle", self.period)


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """Start so many runs in a period; the events of others are dropped.

    Args:
        limit: How many.
        period: In how long.
        key: See the module.
    """

    limit: int
    period: timedelta
    key: str = ""

    def __post_init__(self) -> None:
        _positive("RateLimit", limit=self.limit)
        _whole("RateLimit", self.period)


@dataclass(frozen=True)
class Priority:
    """Which waiting run starts first.

    Args:
        run: An expression in the engine's own language that gives a number of seconds: how much earlier a run counts
            as queued.
    """

    run: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Start one run for several events. The function's input is then the list of their data.

    Args:
        max_size: How many events at most.
        timeout: How long to wait for them.
        key: See the module.
    """

    max_size: int
    timeout: timedelta
    key: str = ""

    def __post_init__(self) -> None:
        _positive("Batch", max_size=self.max_size)
        _whole("Batch", self.timeout)
