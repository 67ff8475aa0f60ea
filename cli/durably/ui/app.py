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

from durably.core import Backend, DurablyError
from durably.ui import actions, pages
from durably.ui.guard import LOOPBACK, Guard
from durably.ui.rendering import render
from durably.ui.traces import Traces

__all__ = ["make_app"]


def make_app(backend: Backend, *, hosts: Iterable[str] = LOOPBACK, password: str | None = None) -> Starlette:
    """Make the page.

    Args:
        backend: The engine, open. Whether it is a worker too is its own affair.
        hosts: The names under which it is reached; empty for any, which needs a password.
        password: What a user must give; ``None`` for a page that only this machine reaches.

    Raises:
        ValueError: If it answers to any name and has no password.
    """
    app = Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/runs", 307)),
            Route("/runs", pages.runs),
            Route("/runs/{run_id}", pages.run),
            Route("/runs/{run_id}/rows", pages.run_rows),
            Route("/runs/{run_id}/step", pages.step),
            Route("/runs/{run_id}/conversation", pages.conversation),
            Route("/runs/{run_id}/compare", pages.comparison),
            Route("/runs/{run_id}/live", pages.run_live),
            Route("/runs/{run_id}/cancel", actions.cancel, methods=["POST"]),
            Route("/approvals", pages.approvals),
            Route("/approvals/{approval}", actions.decide, methods=["POST"]),
            Route("/live/runs", pages.runs_live),
            Route("/live/approvals", pages.approvals_live),
            Mount("/static", StaticFiles(packages=[("durably.ui", "static")])),
        ],
        middleware=[Middleware(Guard, hosts=frozenset(hosts), password=password)],
        exception_handlers={HTTPException: _say, DurablyError: _say_error},
    )
    app.state.backend = backend
    app.state.traces = Traces(backend)
    app.state.token = secrets.token_urlsafe(32)
    return app


async def _say(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else str(error)
    return render(request, "error.html", status=status, code=status, said=said)


async def _say_error(request: Request, error: Exception) -> Response:
    return render(request, "error.html", status=500, code=500, said=str(error))
