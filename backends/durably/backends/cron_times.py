"""The times of a cron: which come next, and whether a schedule can be read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from itertools import islice
from types import ModuleType
from zoneinfo import ZoneInfo

from durably.core import DefinitionError
from durably.core.flow import Cron

__all__ = ["check_cron", "due_times", "last_time", "times_after"]

AT_ONCE = 500
"""How many further missed times `due_times` gives at most, unless it is told otherwise."""


def _load() -> ModuleType | None:
    """The library that reads schedules, or ``None`` where the extra is not installed: most programs have no cron."""
    try:
        return import_module("cronsim")
    except ImportError:
        return None


_CRONSIM = _load()


def _cronsim() -> ModuleType:
    if _CRONSIM is None:
        raise ImportError("cron= on this backend needs cronsim: pip install 'durably[cron]'")
    return _CRONSIM


def check_cron(cron: Cron, function: str) -> None:
    """Refuse a schedule that cannot be read, or never comes.

    Raises:
        DefinitionError: If it is one.
        ImportError: If the library that reads schedules is not installed.
    """
    unreadable: type[Exception] = _cronsim().CronSimError
    try:
        next(times_after(cron, 0.0))
    except (unreadable, StopIteration) as error:
        reason = str(error) or "it never comes"
        raise DefinitionError(f"function {function!r}, cron: {cron.schedule!r} is not a schedule: {reason}") from None


def times_after(cron: Cron, moment: float) -> Iterator[float]:
    """The times of a cron after a moment, in seconds since 1970."""
    # CronSim keeps to Debian's cron: a time in the gap comes at its end, and a time that comes twice counts once.
    start = datetime.fromtimestamp(moment, ZoneInfo(cron.timezone))
    return (each.timestamp() for each in _cronsim().CronSim(cron.schedule, start))


def last_time(cron: Cron, due: float, now: float) -> float:
    """The last time of a cron by now, where `due` is an earlier one; looked for backwards, in ever longer spans."""
    span = 3600.0
    while now - span > due:
        found = None
        for moment in times_after(cron, now - span):
            if moment > now:
                break
            found = moment
        if found is not None:
            return found
        span *= 8
    last = due
    for moment in times_after(cron, due):
        if moment > now:
            break
        last = moment
    return last


def due_times(cron: Cron, due: float, now: float, at_once: int = AT_ONCE) -> list[float]:
    """The times that are to have a run now, of those from one that is due: the last of them, or each, as it says.

    Of very many the first, ``at_once`` and one more; ask again for the others.
    """
    if cron.missed == "once":
        return [last_time(cron, due, now)]
    return [due, *(each for each in islice(times_after(cron, due), at_once) if each <= now)]
