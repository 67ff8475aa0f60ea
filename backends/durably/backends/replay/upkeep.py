"""What a worker does besides running: it says that it lives, who it is, and forgets what its retention lets go."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from durably.backends.replay.clock import Clock
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Changes
from durably.backends.replay.lease import Lease
from durably.backends.replay.pruning import Pruner
from durably.backends.replay.sweeper import Sweeper
from durably.core import Function, Pruned, Retention, WorkerView
from durably.core.errors import UnsupportedFeatureError
from durably.core.worker_view import library_version

__all__ = ["Upkeep"]


class Upkeep:
    """The upkeep of one worker.

    Args:
        backend: The name of the engine, for errors.
        journal: The storage.
        functions: What the worker serves.
        lease: Its lease.
        worker: Its id.
        name: What others see it as; empty: the program's name and its process id.
        retention: How long finished runs are kept, unless their function says otherwise; ``None``: for ever.
        clock: Tells how old a run is.
        awaited: The runs that somebody here waits for.
        shared: Whether other processes use the storage too.
        patience: How many seconds it waits for the lock of the storage when it forgets.

    Attributes:
        lag: How many seconds late the worker was when it last looked after its runs.

    Raises:
        UnsupportedFeatureError: If there is a retention, and the storage cannot forget.
    """

    def __init__(
        self,
        backend: str,
        journal: Journal,
        functions: Mapping[str, Function[Any, Any]],
        *,
        lease: Lease,
        worker: str,
        name: str,
        retention: Retention | None,
        clock: Clock,
        awaited: Callable[[], Collection[str]],
        shared: bool,
        patience: float,
    ) -> None:
        self.lag = 0.0
        self.worker = worker
        self.name = name or f"{Path(sys.argv[0]).name or 'python'}-{os.getpid()}"
        self._backend = backend
        self._journal = journal
        self._functions = functions
        self._lease = lease
        storage = journal.pruning
        self._pruner: Pruner | None = None
        self._sweeper: Sweeper | None = None
        if storage is not None:
            self._pruner = Pruner(
                storage,
                functions,
                retention,
                write=journal.write,
                clock=clock,
                awaited=awaited,
                shared=shared,
                patience=patience,
            )
            self._sweeper = Sweeper(self._pruner, clock)
        elif retention is not None or any(each.retention for each in functions.values()):
            raise self._cannot_forget("retention=")

    # -- the lease

    async def sign_on(self) -> None:
        """Say that the worker lives, and who it is."""
        await self._lease.renew()
        await self._journal.write(lambda: self._journal.introduce(self._view()))

    async def renew(self) -> None:
        """Say so again, if it is time."""
        if self._lease.is_due:
            await self.sign_on()

    def _view(self) -> WorkerView:
        return WorkerView(
            id=self.worker,
            name=self.name,
            host=platform.node(),
            pid=os.getpid(),
            version=library_version(),
            functions=tuple(self._functions),
            lag=round(self.lag, 3),
        )

    def workers(self) -> list[WorkerView]:
        """The workers that live now.

        Raises:
            UnsupportedFeatureError: If the storage keeps no list of them.
        """
        found = self._journal.workers(time.time())
        if found is None:
            reason = "its storage keeps no list of them"
            raise UnsupportedFeatureError(backend=self._backend, feature="workers()", reason=reason)
        return list(found)

    # -- forgetting

    async def prune(self, rule: Retention | None) -> Pruned:
        """Forget finished runs by a rule; without one, by the functions' and the default.

        Raises:
            UnsupportedFeatureError: If the storage cannot forget.
        """
        if self._pruner is None:
            raise self._cannot_forget("prune()")
        return await self._pruner.prune(rule)

    @property
    def event_memory(self) -> float:
        """For how many seconds an event is remembered at least."""
        return math.inf if self._pruner is None else self._pruner.event_memory()

    def _cannot_forget(self, feature: str) -> UnsupportedFeatureError:
        reason = "its storage has no way to forget runs"
        return UnsupportedFeatureError(backend=self._backend, feature=feature, reason=reason)

    def apply(self, changes: Changes) -> None:
        """Take note of the runs that ended."""
        if self._sweeper is not None:
            self._sweeper.apply(changes)

    def look(self) -> None:
        """Begin to forget, if it is time."""
        if self._sweeper is not None:
            self._sweeper.look()

    async def stop(self) -> None:
        """End what goes on beside the runs."""
        if self._sweeper is not None:
            await self._sweeper.stop()
