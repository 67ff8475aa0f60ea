"""A worker as others see it: whether it lives, what it serves, and whether it keeps up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["WorkerView", "library_version"]


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """A worker at one moment. Fields that the engine does not report are ``None``.

    Attributes:
        id: Its id, new each time it starts.
        name: Its name, from its program.
        host: The machine it runs on.
        pid: Its process there.
        version: The version of its program's code where the engine keeps one, else of this library.
        functions: The ids of the functions it serves.
        lease_until: The end of its lease, in seconds since 1970. It renews the lease while it lives.
        runs: How many runs it owns.
        lag: How many seconds late its last check of its runs was: its event loop was busy, or the process was stopped.
    """

    id: str
    name: str
    host: str
    pid: int | None
    version: str | None = None
    functions: tuple[str, ...] | None = None
    lease_until: float | None = None
    runs: int | None = None
    lag: float | None = None


@cache
def library_version() -> str:
    """The version of this library that is installed; empty if it runs from its sources alone."""
    try:
        return version("durably")
    except PackageNotFoundError:
        return ""
