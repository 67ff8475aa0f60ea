"""The options that say which runs are asked for, and what a backend is told of them."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from durably.core import RunStatus
from durably.core.durations import moment, text_seconds
from durably.core.run_filter import RunFilters

__all__ = [
    "After",
    "Before",
    "FunctionFilter",
    "Parent",
    "Root",
    "Session",
    "Since",
    "StatusFilter",
    "Tags",
    "TextFilter",
    "Until",
    "asked_filters",
    "read_moment",
]

_WHEN = "a time such as 2030-01-31T09:00:00Z, or how long ago, such as 2h."

FunctionFilter = Annotated[str | None, typer.Option("--function", metavar="ID", help="Only runs of this function.")]
StatusFilter = Annotated[
    list[RunStatus] | None, typer.Option("--status", help="Only runs with this status; may be given several times.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only runs with this tag; several: with all of them.")
]
Session = Annotated[str | None, typer.Option("--session", metavar="KEY", help="Only runs of this session key.")]
Parent = Annotated[str | None, typer.Option("--parent", metavar="RUN", help="Only runs that this run invoked.")]
Root = Annotated[str | None, typer.Option("--root", metavar="RUN", help="Only runs in the tree of calls of this run.")]
Since = Annotated[str | None, typer.Option("--since", metavar="WHEN", help=f"Started then or later: {_WHEN}")]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help=f"Started before then: {_WHEN}")]
TextFilter = Annotated[str, typer.Option("--text", metavar="TEXT", help="Only runs with this text in their ids.")]
After = Annotated[str | None, typer.Option("--after", metavar="CURSOR", help="Runs older than a page: its 'next'.")]
Before = Annotated[
    str | None, typer.Option("--before", metavar="CURSOR", help="Runs newer than a page: its 'previous'.")
]


def asked_filters(
    *,
    function: str | None,
    status: list[RunStatus] | None,
    tags: list[str] | None,
    session: str | None,
    parent: str | None,
    root: str | None,
    since: str | None,
    until: str | None,
    text: str,
) -> RunFilters:
    """The options of a user as the filters of a backend.

    Raises:
        ValueError: If a time cannot be read.
    """
    return RunFilters(
        function=function,
        status=status or None,
        tags=tags or [],
        session_key=session,
        parent=parent,
        root=root,
        created_after=read_moment(since, "--since"),
        created_before=read_moment(until, "--until"),
        text=text,
    )


def read_moment(text: str | None, option: str) -> float | None:
    """A time that a user wrote: a moment in ISO 8601, or how long ago it was.

    Raises:
        ValueError: If it is neither.
    """
    if text is None:
        return None
    ago = text_seconds(text)
    if ago is not None:
        return max(0.0, time.time() - ago)
    return moment(text, option)
