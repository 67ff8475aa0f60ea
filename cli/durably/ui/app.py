"""The page as an ASGI app, on an engine that is open."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from durably.cli.address import Program
from durably.core import DurablyError, RunNotFoundError
from durably.ui import actions, pages, run_list
from durably.ui.guard import LOOPBACK, Guard
from durably.ui.rendering import render
from durably.ui.traces import Traces

__all__ = ["make_app"]


def make_app(program: Program, *, hosts: Iterable[str] = LOOPBACK, password: str | None = None) -> Starlette:
    """Make the page.

    Args:
        program: The engine, open, and the functions by which changed arguments of tools are checked.
        hosts: The names under which it is reached; empty for any, which needs a password.
        password: What a user must give; ``None`` for a page that only this machine reaches.

    Raises:
        ValueError: If it answers to any name and has no password.
    """
    app = Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/runs", 307)),
            Route("/runs", run_list.runs),
            Route("/runs/{run_id}", pages.run),
            Route("/runs/{run_id}/rows", pages.run_rows),
            Route("/runs/{run_id}/step", pages.step),
            Route("/runs/{run_id}/conversation", pages.conversation),
            Route("/runs/{run_id}/messages", pages.messages),
            Route("/runs/{run_id}/compare", pages.comparison),
            Route("/runs/{run_id}/live", pages.run_live),
            Route("/runs/{run_id}/cancel", actions.cancel, methods=["POST"]),
            Route("/runs/{run_id}/retry", actions.retry, methods=["POST"]),
            Route("/runs/{run_id}/fork", actions.fork, methods=["POST"]),
            Route("/approvals", pages.approvals),
            Route("/approvals", actions.decide, methods=["POST"]),
            Route("/live/runs", run_list.runs_live),
            Route("/live/approvals", pages.approvals_live),
            Mount("/static", StaticFiles(packages=[("durably.ui", "static")])),
        ],
        middleware=[Middleware(Guard, hosts=frozenset(hosts), password=password)],
        exception_handlers={HTTPException: _say, DurablyError: _say_error},
    )
    app.state.program = program
    app.state.backend = program.client
    app.state.traces = Traces(program.client)
    app.state.token = secrets.token_urlsafe(32)
    return app


async def _say(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else str(error)
    return render(request, "error.html", status=status, code=status, said=said)


async def _say_error(request: Request, error: Exception) -> Response:
    """A run that is not there, or something that cannot be done with it."""
    code = 404 if isinstance(error, RunNotFoundError) else 409
    return render(request, "error.html", status=code, code=code, said=str(error))
