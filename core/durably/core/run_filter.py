"""Which runs are asked for, and a page of those that were found.

Owns: what the filters mean, which is the same on every engine. Does not own: how an engine finds runs quickly.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, TypeVar, overload

from durably.core.counts import is_count
from durably.core.durations import moment
from durably.core.error_text import shown
from durably.core.ids import check_tags
from durably.core.reference import FunctionRef
from durably.core.run_view import RunStatus, RunView

__all__ = [
    "FoundRuns",
    "RunFilter",
    "RunFilters",
    "RunPage",
    "check_limit",
    "encode_cursor",
    "found_page",
    "read_cursor",
    "run_filter",
]

R = TypeVar("R")
Moment = float | datetime | str


class RunFilters(TypedDict, total=False):
    """Which runs are asked for. All that is given must hold.

    Keys:
        function: The function, or its id.
        status: A :class:`RunStatus`, or several of which one must hold.
        parent: The id of the run that invoked them.
        root: The id of the run at the top of the calls that led to them; that run is among them.
        session_key: The ``session_key`` in their input.
        tags: Tags that they all have.
        created_after: When they were started, at the earliest: seconds since 1970, an aware ``datetime``, or ISO 8601.
        created_before: Before when they were started.
        ended_after: When they ended, at the earliest.
        ended_before: Before when they ended.
        text: A text within their ids.
    """

    function: FunctionRef[Any, Any] | str | None
    status: RunStatus | Iterable[RunStatus] | None
    parent: str | None
    root: str | None
    session_key: str | None
    tags: Sequence[str]
    created_after: Moment | None
    created_before: Moment | None
    ended_after: Moment | None
    ended_before: Moment | None
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are asked for, as an engine is told. ``None`` and nothing at all stand for any.

    Attributes:
        function: The id of the function.
        statuses: Where they may stand.
        parent: See :class:`RunFilters`.
        root: See :class:`RunFilters`.
        session_key: See :class:`RunFilters`.
        tags: See :class:`RunFilters`.
        created: From when, and before when, they were started; seconds since 1970.
        ended: The same for their ends.
        text: See :class:`RunFilters`.
        prefix: What their ids begin with.
    """

    function: str | None = None
    statuses: frozenset[RunStatus] = frozenset()
    parent: str | None = None
    root: str | None = None
    session_key: str | None = None
    tags: tuple[str, ...] = ()
    created: tuple[float | None, float | None] = (None, None)
    ended: tuple[float | None, float | None] = (None, None)
    text: str = ""
    prefix: str = ""

    @property
    def live(self) -> bool:
        """Whether a run that has not ended may be among them."""
        return self.ended == (None, None) and (not self.statuses or any(not each.final for each in self.statuses))

    def matches(self, view: RunView) -> bool:
        """Whether a run is one of them."""
        return (
            self.function in (None, view.function)
            and (not self.statuses or view.status in self.statuses)
            and self.parent in (None, view.parent)
            and self.root in (None, view.root or view.id)
            and self.session_key in (None, view.session_key)
            and set(self.tags) <= set(view.tags)
            and _within(view.created_at, self.created)
            and (self.ended == (None, None) or (view.status.final and _within(view.ended_at, self.ended)))
            and self.text in view.id
            and view.id.startswith(self.prefix)
        )


def run_filter(filters: RunFilters) -> RunFilter:
    """The filters of a program, checked.

    Raises:
        TypeError: If a filter is not known, or a tag or a time is not one.
        ValueError: If a status, a tag or a time is out of range.
    """
    unknown = sorted(set(filters) - RunFilters.__optional_keys__)
    if unknown:
        raise TypeError(f"runs cannot be filtered by {', '.join(unknown)}: use {', '.join(_NAMES)}")
    function = filters.get("function")
    return RunFilter(
        function=function.id if isinstance(function, FunctionRef) else function,
        statuses=_statuses(filters.get("status")),
        parent=filters.get("parent"),
        root=filters.get("root"),
        session_key=filters.get("session_key"),
        tags=check_tags(filters.get("tags", ())),
        created=(_moment(filters, "created_after"), _moment(filters, "created_before")),
        ended=(_moment(filters, "ended_after"), _moment(filters, "ended_before")),
        text=filters.get("text") or "",
    )


_NAMES = tuple(RunFilters.__annotations__)


def _statuses(status: RunStatus | Iterable[RunStatus] | None) -> frozenset[RunStatus]:
    if status is None:
        return frozenset()
    try:
        several = frozenset(map(RunStatus, [status] if isinstance(status, str) else status))
    except ValueError:
        known = ", ".join(each.value for each in RunStatus)
        raise ValueError(f"status={status!r} is no status of a run; these are: {known}") from None
    if not several:
        raise ValueError("status=[] fits no run: leave it out, or name at least one")
    return several


def _moment(filters: RunFilters, name: str) -> float | None:
    value: Any = filters.get(name)
    return None if value is None else moment(value, name)


def _within(at: float, span: tuple[float | None, float | None]) -> bool:
    start, end = span
    return (start is None or at >= start) and (end is None or at < end)


def check_limit(limit: int) -> None:
    """Refuse a number of runs that is none.

    Raises:
        ValueError: If it is not 1 or more.
    """
    if not is_count(limit, 1):
        raise ValueError(f"limit is how many runs a page may hold, 1 or more, not {shown(limit)}")


# -- pages


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """A page as an engine gives it.

    Attributes:
        views: The runs, newest first.
        next: Where older ones go on, or ``None`` if there are none.
        previous: Where newer ones go on, or ``None`` if there are none.
    """

    views: Sequence[RunView]
    next: str | None = None
    previous: str | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RunPage(Sequence[R]):
    """A page of runs, the newest first. It equals any sequence of the same runs.

    Attributes:
        items: The runs.
        next: The ``after=`` of the page of older runs, or ``None`` if there are none.
        previous: The ``before=`` of the page of newer runs, or ``None`` if there are none.
    """

    items: tuple[R, ...] = field(default=())
    next: str | None = None
    previous: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[R]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[R, ...]: ...
    def __getitem__(self, index: int | slice) -> R | tuple[R, ...]:
        return self.items[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.items == tuple(other)

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        return f"RunPage({list(self.items)!r}, next={self.next!r}, previous={self.previous!r})"


def found_page(
    found: Sequence[tuple[tuple[int | float | str, ...], RunView]], *, after: str | None, back: bool, more: bool
) -> FoundRuns:
    """A page of runs, with the cursors of its neighbours.

    Args:
        found: The runs with their places, newest first.
        after: The cursor of the page before it, or ``None``.
        back: Whether it was looked for from older runs to newer ones. The page that the cursor came from lies on its
            other side.
        more: Whether there are more runs in the direction in which it was looked.
    """
    if not found:
        return FoundRuns(())
    first, last = encode_cursor(*found[0][0]), encode_cursor(*found[-1][0])
    return FoundRuns(
        [view for _, view in found],
        next=last if more or back else None,
        previous=first if (more if back else after is not None) else None,
    )


def encode_cursor(*place: int | float | str) -> str:
    """A place in a list of runs, as programs hand it on."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, *kinds: type) -> Any:
    """What :func:`encode_cursor` was given, or ``None`` for no cursor.

    Args:
        cursor: What a page gave.
        kinds: The types of its parts.

    Raises:
        ValueError: If it is not such a cursor.
    """
    if cursor is None:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError):
        place = None
    if not isinstance(place, list) or [type(part) for part in place] != list(kinds):
        raise ValueError(f"{shown(cursor)} is no cursor: give after= the 'next' of a page, or before= its 'previous'")
    return place
