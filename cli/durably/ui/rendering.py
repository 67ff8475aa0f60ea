"""The templates, and how they write times, tokens and money. Everything they are given is escaped."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from durably.cli.text import clock_time, money, one_line, pretty_json, seconds, spell_tokens, tokens
from durably.cli.waits import spell_wait, spell_waits

__all__ = ["path_of", "render", "run_id_of"]


def _ago(at: float) -> str:
    passed = max(0.0, time.time() - at)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if passed >= length:
            return f"{passed // length:.0f} {unit} ago"
    return f"{passed:.0f} s ago"


def path_of(run_id: str) -> str:
    """The path of a run. Its id is quoted twice: servers and browsers undo the first, and would split it at a slash."""
    quoted = quote(run_id, safe="")
    return f"/runs/{quote(quoted if quoted.strip('.') else quoted.replace('.', '%2E'), safe='')}"


def run_id_of(request: Request) -> str:
    """The run that a request is about, from its path."""
    return unquote(request.path_params["run_id"])


_templates = Environment(
    loader=PackageLoader("durably.ui"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(
    ago=_ago,
    clock=clock_time,
    line=one_line,
    money=money,
    path=path_of,
    quote=lambda text: quote(text, safe=""),
    pretty=pretty_json,
    seconds=seconds,
    spent=spell_tokens,
    tokens=tokens,
    wait=lambda wait: spell_wait(wait, time.time()),
    waits=lambda waits: spell_waits(waits, time.time()),
)


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """An answer made by a template.

    Args:
        request: What is answered.
        template: The name of the template's file.
        status: The HTTP status.
        values: What the template shows.
    """
    state = request.app.state
    shared = {"engine": state.backend.name, "token": state.token, "at": request.url.path}
    return HTMLResponse(_templates.get_template(template).render(**shared, **values), status)
