"""What a SQLite file says of the workers that share it, and whether the process of one is gone."""

from __future__ import annotations

import json
import os
import platform

from durably.core.worker_view import WorkerView

__all__ = ["is_dead", "this_host", "worker_view"]


def worker_view(id: str, pid: int, lease_until: float, details: str | None, runs: int) -> WorkerView:
    """A worker, as its row and its details say; ``runs`` are those that it has."""
    # A worker of an older version says nothing about itself.
    name, host, version, functions, lag = json.loads(details) if details else ("", "", None, None, None)
    return WorkerView(
        id=id,
        name=name,
        host=host,
        pid=pid,
        version=version,
        functions=None if functions is None else tuple(functions),
        lease_until=lease_until,
        runs=runs,
        lag=lag,
    )


def this_host() -> str:
    """A name of this host, the same for all processes whose ids can be compared."""
    # Process ids are only comparable within one PID namespace: containers may share a file, not their processes.
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{platform.node()} {namespace}"


def is_dead(host: str, pid: int) -> bool:
    """Whether a process of this host is surely gone; one of another host can only be judged by its lease."""
    if host != this_host():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
