"""Retention: how long finished runs are kept, and what went when they were forgotten.

Owns: the rule and the checks of its values. Does not own: which runs must stay all the same, and how an engine forgets
(the backends).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from durably.core.durations import Duration, duration_seconds
from durably.core.error_text import shown
from durably.core.errors import DefinitionError
from durably.core.named_values import NamedValues

__all__ = ["EVENT_MEMORY", "Pruned", "Retention"]

EVENT_MEMORY = 24 * 3600.0
"""Seconds for which the id of an event is remembered at least: until then the same event starts nothing again."""


@dataclass(frozen=True, kw_only=True)
class Retention(NamedValues):
    """How long the finished runs of a function are kept. With both limits, a run is deleted when either is passed.

    Args:
        age: How long a run is kept after its end.
        count: How many of the newest finished runs of a function are kept, by their start.

    Raises:
        DefinitionError: If neither is given, the age is no duration, or the count is not a whole number from 0.
    """

    _example = 'Retention(age="30 days")'

    age: Duration | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.age is None and self.count is None:
            raise DefinitionError("Retention: give age=, such as '30 days', or count=, such as 10_000, or both")
        if self.count is not None and (isinstance(self.count, bool) or not isinstance(self.count, int)):
            raise DefinitionError(f"Retention: count is a number of runs, not {shown(self.count)}")
        if self.count is not None and self.count < 0:
            raise DefinitionError(f"Retention: count is 0 or more, not {self.count}")
        try:
            _ = self.seconds
        except (TypeError, ValueError) as error:
            raise DefinitionError(str(error)) from None

    @property
    def seconds(self) -> float | None:
        """The age in seconds, or ``None`` if runs of any age are kept."""
        return None if self.age is None else duration_seconds(self.age, "Retention: age")


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What pruning removed.

    Attributes:
        runs: How many runs.
        records: How many records of these runs, and of runs whose deletion a crash had interrupted.
        events: How many events, with their remembered ids.
    """

    runs: int = 0
    records: int = 0
    events: int = 0

    def __add__(self, other: Pruned) -> Self:
        return type(self)(
            runs=self.runs + other.runs, records=self.records + other.records, events=self.events + other.events
        )
