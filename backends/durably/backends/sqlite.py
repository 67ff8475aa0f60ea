"""The replay engine on one SQLite file: durable, without a server, and safe for several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import SecretStr

from durably.backends.replay.backend import MAX_RESTING, ReplayBackend
from durably.backends.replay.clock import Clock, SystemClock
from durably.backends.replay.flow.rules import FLOW_RULES
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.backends.sqlite_deltas import SQLiteDeltas
from durably.core import Capabilities, Function, Observer, Retention
from durably.core.deltas import DeltaStore
from durably.core.durations import Duration

__all__ = ["SQLiteBackend"]

POLL_SECONDS = 0.2


class SQLiteBackend(ReplayBackend):
    """Runs durable functions in this process and keeps them in one file.

    ``async with`` resumes the runs that an earlier process left unfinished. Several processes may share the file: each
    run has one owner, which renews its lease while it lives. A write of a worker that has lost the run is refused.

    Without functions it is a client: it starts, reads and signals runs that other processes execute.

    Args:
        path: The file. It is created if it does not exist, readable by its owner only.
        functions: The functions to run.
        clock: Default: the wall clock.
        evict: ``"always"`` drops a run from memory after each step and replays it from the start.
        resources: Clients, pools and secrets by name, for bodies.
        secrets: Texts to mask wherever something is written.
        max_payload_bytes: The largest value a step may return, as JSON.
        worker_name: The name in ``workers()``. Default: the program's name and its process id.
        max_runs: How many runs it executes at once. Waiting runs do not count.
        max_resting: How many waiting runs stay in memory. A run beyond that is replayed when it goes on. ``None``: all.
        max_steps: How many bodies it runs at once; the others wait.
        retention: How long finished runs are kept, unless their function says otherwise. Default: forever.
        busy_timeout: How long ``start``, ``send`` and other calls wait while another process holds the file's lock.
        observers: Receive the events of runs. See :class:`~durably.core.Observer`.
        deltas: The store for pieces of streamed answers. Default: the same file.
    """

    name = "sqlite"
    capabilities = Capabilities(durable=True, multi_process=True, max_payload_bytes=8 * 2**20, flow_control=FLOW_RULES)
    journal: SQLiteJournal
    storage: ClassVar[type[SQLiteJournal]] = SQLiteJournal

    def __init__(
        self,
        path: str | Path,
        functions: Sequence[Function[Any, Any]] = (),
        *,
        clock: Clock | None = None,
        evict: Literal["never", "always"] = "never",
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
        worker_name: str = "",
        max_runs: int | None = None,
        max_resting: int | None = MAX_RESTING,
        max_steps: int | None = None,
        retention: Retention | None = None,
        busy_timeout: Duration = 30,
        observers: Iterable[Observer] = (),
        deltas: DeltaStore | None = None,
    ) -> None:
        super().__init__(
            functions,
            journal=self.storage(path),
            clock=clock or SystemClock(),
            threads=True,
            evict=evict,
            poll=POLL_SECONDS,
            resources=resources,
            secrets=secrets,
            max_payload_bytes=max_payload_bytes,
            worker_name=worker_name,
            max_runs=max_runs,
            max_resting=max_resting,
            max_steps=max_steps,
            retention=retention,
            busy_timeout=busy_timeout,
            observers=observers,
            deltas=deltas or SQLiteDeltas(path),
        )
