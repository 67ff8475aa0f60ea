"""The command ``doctor``: what is installed, and whether an engine can be reached and used from here."""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer
from rich.text import Text

from durably.cli.address import open_client
from durably.cli.command import NO, AsJSON, console, print_json, run_command, said
from durably.cli.text import plain

__all__ = ["doctor"]

EXTRAS = {
    "anthropic": ("anthropic",),
    "cli": ("typer", "rich", "starlette", "jinja2", "uvicorn"),
    "cron": ("cronsim",),
    "inngest": ("inngest", "fastapi"),
    "litellm": ("litellm",),
    "mcp": ("mcp",),
    "openai": ("openai",),
    "otel": ("opentelemetry-api",),
    "temporal": ("temporalio",),
    "testing": ("hypothesis", "pytest", "pytest_asyncio"),
}
"""The packages by which an extra is known to be there."""

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY")

PATIENCE = 10.0
"""Seconds in which a server must answer."""

Verdict = Literal["ok", "note", "problem"]
OptionalBackend = Annotated[
    str | None,
    typer.Option("--backend", "-b", envvar="DURABLY_BACKEND", metavar="URL|MODULE:OBJECT", help="An engine to try."),
]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: What.
        verdict: ``ok``, ``note`` for what may be right, or ``problem``.
        said: What was found.
    """

    about: str
    verdict: Verdict
    said: str


def doctor(backend: OptionalBackend = None, as_json: AsJSON = False) -> None:
    """Check this installation: versions, extras, the clock, and the engine.

    Exits with 0 if nothing is wrong, with 1 if something is.
    """
    findings = [*_versions(), *_extras(), *_keys(), _clock()]
    if backend is not None:
        findings += [*_file(backend), run_command(_reach(backend))]
    if as_json:
        print_json({"ok": _is_well(findings), "findings": [asdict(each) for each in findings]})
    else:
        for each in findings:
            mark, style = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "red")}[each.verdict]
            console().print(Text(f"{mark} ", style=style).append(f"{each.about}: ", "bold").append(plain(each.said)))
    raise typer.Exit(0 if _is_well(findings) else NO)


def _is_well(findings: list[Finding]) -> bool:
    return all(each.verdict != "problem" for each in findings)


def _versions() -> Iterator[Finding]:
    python = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("python", "problem" if old else "ok", f"{python} at {sys.executable}")
    own = _version("durably")
    yield Finding("durably", "ok" if own else "note", own or "not installed; this is a source tree")
    yield Finding("pydantic", "ok", _version("pydantic") or "not found")
    yield Finding("sqlite", "ok", sqlite3.sqlite_version)


def _extras() -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        found = {name: _version(name) for name in packages}
        missing = [name for name, known in found.items() if known is None]
        if missing:
            yield Finding(f"durably[{extra}]", "note", f"not there: {', '.join(missing)}")
        else:
            yield Finding(f"durably[{extra}]", "ok", ", ".join(f"{name} {known}" for name, known in found.items()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _keys() -> Iterator[Finding]:
    given = [name for name in KEYS if os.environ.get(name)]
    yield Finding("keys", "ok" if given else "note", ", ".join(given) or "none of a provider is in the environment")


def _clock() -> Finding:
    """Leases and timers are moments: a clock that is far off makes them end at once, or never."""
    year = time.gmtime().tm_year
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z")
    if not 2025 <= year < 2100:
        return Finding("clock", "problem", f"{shown}: set it, since leases and timers go by it")
    return Finding("clock", "ok", shown)


def _file(address: str) -> Iterator[Finding]:
    """Who may read and write the file of a SQLite engine."""
    url = urlsplit(address)
    if url.scheme != "sqlite":
        return
    path = Path(url.path.removeprefix("/"))
    if not path.exists():
        return  # to reach it says so
    mode = stat.S_IMODE(path.stat().st_mode)
    others = mode & 0o077
    yield Finding(
        "file",
        "note" if others else "ok",
        f"{path.absolute()}, mode {mode:o}" + (": others can read it; chmod 600 keeps runs private" if others else ""),
    )
    for place in (path, path.absolute().parent):
        if not os.access(place, os.W_OK):
            yield Finding("file", "problem", f"{place.absolute()} cannot be written by this user")


async def _reach(address: str) -> Finding:
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE), open_client(address) as engine:
            await engine.runs(limit=1)
    except TimeoutError:
        return Finding("backend", "problem", f"{address} did not answer within {PATIENCE:g} s")
    except Exception as error:
        return Finding("backend", "problem", f"{address}: {said(error)}")
    return Finding("backend", "ok", f"{engine.name} answered in {(time.monotonic() - began) * 1000:.0f} ms")
