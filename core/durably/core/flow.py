"""Flow control: rules that an engine applies before it lets a run start or go on.

Owns: the options and the checks of their values. Does not own: how an engine applies them. An engine that lacks a rule
refuses the function at start-up.

A ``key`` is a dotted path in the function's input, such as ``"user.id"``. The rule then holds for each value at that
path separately.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from durably.core.durations import duration_seconds
from durably.core.error_text import shown
from durably.core.errors import DefinitionError

__all__ = ["Batch", "Concurrency", "Debounce", "Priority", "RateLimit", "Throttle"]


def _positive(name: str, **numbers: int) -> None:
    for field, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DefinitionError(f"{name}: {field} must be a whole number, 1 or more, not {shown(value)}")


def _whole(name: str, **durations: timedelta) -> None:
    for field, value in durations.items():
        what = f"{name}: {field}"
        if not isinstance(value, timedelta):
            raise DefinitionError(f"{what} is a timedelta, such as timedelta(seconds=10), not {shown(value)}")
        if value < timedelta(seconds=1) or value % timedelta(seconds=1):
            raise DefinitionError(f"{what}: {value} is not a whole number of seconds, at least one")
        try:
            duration_seconds(value, what)
        except ValueError as error:
            raise DefinitionError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Concurrency:
    """Limits how many steps of a function run at the same time. The others wait.

    Args:
        limit: The number of steps.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.
        scope: What is counted: the steps of this function (``"fn"``), or of all functions with this key in the
            environment (``"env"``) or the account (``"account"``).

    Raises:
        DefinitionError: If ``limit`` is below 1.
    """

    limit: int
    key: str = ""
    scope: Literal["fn", "env", "account"] = "fn"

    def __post_init__(self) -> None:
        _positive("Concurrency", limit=self.limit)


@dataclass(frozen=True, kw_only=True)
class Debounce:
    """Starts one run with the last event, once no other event has come for a while.

    Args:
        period: How long no event must come, in whole seconds.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.
        timeout: How long to wait at most if events keep coming, in whole seconds. Default: for ever.

    Raises:
        DefinitionError: If a duration is not a whole number of seconds, at least one.
    """

    period: timedelta
    key: str = ""
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        _whole("Debounce", period=self.period)
        if self.timeout is not None:
            _whole("Debounce", timeout=self.timeout)


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """Starts a limited number of runs in a period. Later ones wait.

    Args:
        limit: The number of runs.
        period: The period, in whole seconds.
        burst: How many more may start at once.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.

    Raises:
        DefinitionError: If a number is below 1, or the duration is not a whole number of seconds, at least one.
    """

    limit: int
    period: timedelta
    burst: int = 1
    key: str = ""

    def __post_init__(self) -> None:
        _positive("Throttle", limit=self.limit, burst=self.burst)
        _whole("Throttle", period=self.period)


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """Starts a limited number of runs in a period. Events beyond it are dropped.

    Args:
        limit: The number of runs.
        period: The period, in whole seconds.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.

    Raises:
        DefinitionError: If a number is below 1, or the duration is not a whole number of seconds, at least one.
    """

    limit: int
    period: timedelta
    key: str = ""

    def __post_init__(self) -> None:
        _positive("RateLimit", limit=self.limit)
        _whole("RateLimit", period=self.period)


@dataclass(frozen=True)
class Priority:
    """Decides which waiting run starts first.

    Args:
        run: An expression in the engine's own language. Its value is a number of seconds: the run is placed in the
            queue as if it had come that much earlier.
    """

    run: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Starts one run for several events. The function's input is then the list of their data.

    Args:
        max_size: The largest number of events in one run.
        timeout: How long to wait for more events, in whole seconds.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.

    Raises:
        DefinitionError: If max_size is below 1, or the duration is not a whole number of seconds, at least one.
    """

    max_size: int
    timeout: timedelta
    key: str = ""

    def __post_init__(self) -> None:
        _positive("Batch", max_size=self.max_size)
        _whole("Batch", timeout=self.timeout)
