"""Flow control: rules that an engine applies before it lets a run start or go on.

Owns: the options and the checks of their values. Does not own: how an engine applies them. An engine that lacks a rule
refuses the function at start-up.

A ``key`` is a dotted path in the function's input, such as ``"user.id"``. The rule then holds for each value at that
path separately. A period is a duration, as everywhere: seconds, a ``timedelta``, or a text such as ``"10s"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from durably.core.counts import is_count
from durably.core.durations import Duration, duration_seconds
from durably.core.error_text import shown
from durably.core.errors import DefinitionError
from durably.core.named_values import NamedValues

__all__ = ["Batch", "Concurrency", "Cron", "CronTick", "Debounce", "Priority", "RateLimit", "Throttle"]


def period_seconds(period: Duration) -> float:
    """Return the seconds of a rule's period, which was checked where the rule was made."""
    return duration_seconds(period, "the period")


def _positive(name: str, **numbers: int) -> None:
    for field, value in numbers.items():
        if not is_count(value, 1):
            raise DefinitionError(f"{name}: {field} must be a whole number, 1 or more, not {shown(value)}")


def _span(rule: object, *fields: str) -> None:
    """Make timedeltas of the durations of a rule."""
    for field in fields:
        value, what = getattr(rule, field), f"{type(rule).__name__}: {field}"
        try:
            seconds = duration_seconds(value, what)
        except (TypeError, ValueError) as error:
            raise DefinitionError(str(error)) from None
        if not seconds:
            raise DefinitionError(f"{what} must be longer than 0 seconds, not {shown(value)}")
        object.__setattr__(rule, field, timedelta(seconds=seconds))


@dataclass(frozen=True, kw_only=True)
class Concurrency(NamedValues):
    """Limits how many steps of a function run at the same time. The others wait.

    Args:
        limit: The number of steps.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.
        scope: What is counted: the steps of this function (``"fn"``), or of all functions with this key in the
            environment (``"env"``) or the account (``"account"``).

    Raises:
        DefinitionError: If ``limit`` is below 1.
    """

    _example = "Concurrency(limit=5)"

    limit: int
    key: str = ""
    scope: Literal["fn", "env", "account"] = "fn"

    def __post_init__(self) -> None:
        _positive("Concurrency", limit=self.limit)


@dataclass(frozen=True, kw_only=True)
class Debounce(NamedValues):
    """Starts one run with the last event, once no other event has come for a while.

    Args:
        period: How long to wait without a new event.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.
        timeout: The longest wait if events keep coming. Default: no limit.

    Raises:
        DefinitionError: If a duration cannot be read, or is 0.
    """

    _example = 'Debounce(period="5s")'

    period: Duration
    key: str = ""
    timeout: Duration | None = None

    def __post_init__(self) -> None:
        _span(self, "period", *(["timeout"] if self.timeout is not None else []))


@dataclass(frozen=True, kw_only=True)
class Throttle(NamedValues):
    """Starts a limited number of runs in a period. Later ones wait.

    Args:
        limit: The number of runs.
        period: The period.
        burst: How many more may start at once.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.

    Raises:
        DefinitionError: If a number is below 1, or the duration cannot be read.
    """

    _example = 'Throttle(limit=100, period="1m")'

    limit: int
    period: Duration
    burst: int = 1
    key: str = ""

    def __post_init__(self) -> None:
        _positive("Throttle", limit=self.limit, burst=self.burst)
        _span(self, "period")


@dataclass(frozen=True, kw_only=True)
class RateLimit(NamedValues):
    """Starts a limited number of runs in a period. Events beyond it are dropped.

    Args:
        limit: The number of runs.
        period: The period.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.

    Raises:
        DefinitionError: If a number is below 1, or the duration cannot be read.
    """

    _example = 'RateLimit(limit=100, period="1m")'

    limit: int
    period: Duration
    key: str = ""

    def __post_init__(self) -> None:
        _positive("RateLimit", limit=self.limit)
        _span(self, "period")


@dataclass(frozen=True)
class Priority:
    """Decides which waiting run starts first.

    Args:
        run: A number of seconds, or the dotted path of one in the input: the run is queued as if it had arrived that
            much earlier. A missing value counts as 0. Inngest takes any expression of its language.

    Raises:
        DefinitionError: If it is no text.
    """

    run: str

    def __post_init__(self) -> None:
        if not isinstance(self.run, str) or not self.run.strip():
            raise DefinitionError(
                f"Priority takes a text, seconds or the dotted path of a number of them, such as Priority('60') or "
                f"Priority('urgency'), not {shown(self.run)}"
            )


@dataclass(frozen=True, kw_only=True)
class Batch(NamedValues):
    """Starts one run for several events. The function's input is then the list of their data.

    Args:
        max_size: The largest number of events in one run.
        timeout: How long to wait for more events.
        key: Dotted path in the input. Default: the rule holds for the function as a whole.

    Raises:
        DefinitionError: If max_size is below 1, or the duration cannot be read.
    """

    _example = 'Batch(max_size=50, timeout="5s")'

    max_size: int
    timeout: Duration
    key: str = ""

    def __post_init__(self) -> None:
        _positive("Batch", max_size=self.max_size)
        _span(self, "timeout")


@dataclass(frozen=True)
class Cron:
    """Starts runs on a schedule.

    When the clocks skip an hour, a time within it comes at the first minute after it. When they repeat an hour, a time
    within it comes once. A schedule with ``*`` for the hour follows the elapsed hours.

    Args:
        schedule: Minute, hour, day of the month, month, day of the week, such as ``"0 9 * * 1-5"``.
        timezone: The zone of these times, such as ``"Europe/Berlin"``.
        missed: After a time without a worker: ``"once"`` starts one run, for the last missed time; ``"each"`` one for
            each.

    Raises:
        DefinitionError: If the schedule does not have five fields, or the zone does not exist.
    """

    schedule: str
    timezone: str = "UTC"
    missed: Literal["once", "each"] = "once"

    def __post_init__(self) -> None:
        example = "such as '0 9 * * 1-5' for nine o'clock from Monday to Friday"
        if not isinstance(self.schedule, str) or len(self.schedule.split()) != 5:
            raise DefinitionError(f"cron: {shown(self.schedule)} is not a schedule of five fields, {example}")
        if self.missed not in ("once", "each"):
            raise DefinitionError(f"cron: missed={shown(self.missed)}: use 'once' or 'each'")
        try:
            ZoneInfo(self.timezone)
        except Exception:  # of several kinds, as the text looks like a path or not
            zone = shown(self.timezone)
            raise DefinitionError(f"cron: there is no time zone {zone}; write one such as 'Europe/Berlin'") from None


def read_cron(value: Cron | str | None) -> Cron | None:
    """Return a function's cron from what its option says; a text may begin with ``TZ=Europe/Berlin``.

    Raises:
        DefinitionError: What :class:`Cron` raises.
    """
    if value is None or isinstance(value, Cron):
        return value
    zone, _, rest = value.partition(" ") if isinstance(value, str) else ("", "", "")
    return Cron(rest, timezone=zone.removeprefix("TZ=")) if zone.startswith("TZ=") else Cron(value)


class CronTick(BaseModel):
    """The input of a run that a schedule starts. If the function's input type does not take it, the input is ``None``.

    Attributes:
        cron: The schedule.
        at: The scheduled time. After an outage the run may start much later.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    cron: str
    at: datetime
