"""What the page changes. Each change is a form that carries the token of this page; ``guard.py`` checked its origin."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from durably.core import Run
from durably.ui.approvals import changed_arguments
from durably.ui.guard import user_of
from durably.ui.rendering import path_of, run_id_of

__all__ = ["cancel", "decide", "fork", "retry"]

LARGEST_FORM = 1_000_000
"""Bytes that a form may have."""


async def cancel(request: Request) -> Response:
    """Stop a run."""
    await _form(request)
    run = await _run(request)
    await run.cancel()
    return _back_to(run.id)


async def retry(request: Request) -> Response:
    """Take up a failed run again."""
    await _form(request)
    run = await _run(request)
    await run.retry()
    return _back_to(run.id)


async def fork(request: Request) -> Response:
    """Start a run with the beginning of another one's records, and go to it."""
    form = await _form(request)
    made = await (await _run(request)).fork(form.get("after", ""))
    return _back_to(made.id)


async def decide(request: Request) -> Response:
    """Give or refuse an approval."""
    form = await _form(request)
    decision, by = form.get("decision"), user_of(request) or "page"
    if decision not in ("approve", "reject"):
        raise HTTPException(400, "decision is approve or reject")
    answer: dict[str, Any] = {"approved": False, "reason": form.get("reason", "").strip()}
    if decision == "approve":
        try:
            answer = {"approved": True, "arguments": changed_arguments(form["shown"], form["arguments"])}
        except (ValueError, KeyError) as error:
            raise HTTPException(400, f"these are no arguments: {error}") from error
    await request.app.state.program.decide(form.get("approval", ""), by=by, **answer)
    return _back_to(form.get("run", ""))


async def _run(request: Request) -> Run[Any]:
    return await request.app.state.backend.run(run_id_of(request))  # type: ignore[no-any-return]


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form that a page of ours made.

    Raises:
        HTTPException: If it is too large, is not one, or does not carry our token.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_FORM:
            raise HTTPException(413, "this form is too large")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except ValueError as error:
        raise HTTPException(400, "this is not a form") from error
    form = {name: values[-1] for name, values in fields.items()}
    if not secrets.compare_digest(form.get("token", "").encode(), request.app.state.token.encode()):
        raise HTTPException(403, "this form is not of this page, or the page was started anew: load it again")
    return form


def _back_to(run_id: str) -> Response:
    return RedirectResponse(path_of(run_id) if run_id else "/approvals", 303)
