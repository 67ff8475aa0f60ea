"""The list of runs: filters, numbers by status, and pages both ways."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from durably.cli.run_counts import RunCounts, count_runs
from durably.core import Run, RunStatus
from durably.core.run_filter import RunFilters, RunPage
from durably.core.serialization import digest
from durably.ui.live import events
from durably.ui.rendering import render

__all__ = ["runs", "runs_live"]

PAGE = 50
"""Runs on one page of the list."""


@dataclass(frozen=True)
class Asked:
    """What a user asks for, as the address of the page has it.

    Attributes:
        values: The filters that have one value each, and the cursors; empty texts for those that are not used.
        tags: Tags that the runs must all have.
    """

    values: dict[str, str]
    tags: list[str]

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Read it from a request."""
        names = ("text", "function", "session", "parent", "root", "status", "after", "before")
        values = {name: request.query_params.get(name, "").strip() for name in names}
        return cls(values, [each.strip() for each in request.query_params.getlist("tag") if each.strip()])

    @property
    def filtered(self) -> bool:
        """Whether any filter is used."""
        return bool(self.tags) or any(value for name, value in self.values.items() if name not in ("after", "before"))

    def address(self, **changed: str) -> str:
        """The address of the list with the same filters and some others. A cursor fits its own filters only."""
        values = {**self.values, "after": "", "before": "", **changed}
        pairs = [(name, value) for name, value in values.items() if value] + [("tag", each) for each in self.tags]
        return f"/runs?{urlencode(pairs)}" if pairs else "/runs"

    def filters(self) -> RunFilters:
        """The filters of all but the status, as a backend takes them."""
        return RunFilters(
            function=self.values["function"] or None,
            parent=self.values["parent"] or None,
            root=self.values["root"] or None,
            session_key=self.values["session"] or None,
            tags=self.tags,
            text=self.values["text"],
        )


async def runs(request: Request) -> Response:
    """The runs that fit the filters, and the number of each status among them."""
    asked = Asked.of(request)
    page, counts = await _found(request, asked)
    return render(
        request,
        "runs.html",
        runs=page,
        counts=counts,
        asked=asked,
        filters=asked.values,
        statuses=list(RunStatus),
        state=digest(repr(_state(page, counts))),
        query=str(request.url.query),
        now=time.time(),
    )


async def runs_live(request: Request) -> Response:
    """Says when the list is another one."""
    asked = Asked.of(request)

    async def state() -> object:
        return _state(*await _found(request, asked))

    return events(request, state)


async def _found(request: Request, asked: Asked) -> tuple[RunPage[Run[Any]], RunCounts]:
    backend, filters, status = request.app.state.backend, asked.filters(), asked.values["status"]
    if status and status not in list(RunStatus):
        raise HTTPException(400, f"there is no status {status!r}")
    cursors = {name: asked.values[name] or None for name in ("after", "before")}
    try:
        wanted: RunFilters = {**filters, "status": RunStatus(status)} if status else filters
        page = await backend.runs(**wanted, **cursors, limit=PAGE)
        return page, await count_runs(backend, filters)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error


def _state(page: RunPage[Run[Any]], counts: RunCounts) -> object:
    seen = [(run.id, run.status, run.view.ended_at, [wait.kind for wait in run.view.waiting_for]) for run in page]
    return seen, sorted(counts.numbers.items()), page.next is None, page.previous is None
