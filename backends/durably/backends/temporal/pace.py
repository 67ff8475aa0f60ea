"""How many branches, and steps of branches, a run begins in one of its workflow tasks.

Temporal takes a workflow that computes for two seconds for stuck, and gives its task to another worker. A branch costs
a fraction of a millisecond, but on a busy machine a thousand of them took longer than that. So a run with many branches
completes its task between one lot and the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from temporalio import workflow

from durably.core.errors import Signal

__all__ = ["Pace"]

SEVERAL = 20
"""A run with no more branches than this under way begins them all at once. So did all runs in earlier versions."""

AT_ONCE = 50
"""How many branches, and steps of branches, begin in one task."""

PACED = "durably-paced"
"""The id of the patch since which runs hold back their branches."""

WOKEN = "durably-woken"
"""And since which they wake each branch for its own event (`event_inbox.py`). A condition for each branch would be
looked at whenever anything comes. It takes twenty objects too: with 100,000 of them, Python's garbage collector took so
long that Temporal took tasks for stuck."""

PATCHES: tuple[str, ...] = (WOKEN, PACED)
"""The newest first. A run goes on as it began: with the first of these that its history has, or with none."""


class Pace:
    """Holds back the branches of one run and their steps, in one of its histories.

    Args:
        complete_task: Completes the workflow task.
        registering: Whether a wait of a branch is being registered: other steps stay behind.

    Attributes:
        patch: By which patch this run holds back its branches since it has had many under way, or ``None``.
    """

    def __init__(self, complete_task: Callable[[], Awaitable[None]], registering: Callable[[], bool]) -> None:
        self.patch: str | None = None
        self._complete_task = complete_task
        self._registering = registering
        self._under_way = 0
        self._gathers_beginning = 0
        self._task = 0
        self._begun = 0
        self._branches: deque[asyncio.Future[None]] = deque()
        self._steps: deque[asyncio.Future[None]] = deque()
        self._letting: asyncio.Task[None] | None = None

    @property
    def kept(self) -> bool:
        """Whether this run has had many branches under way, and holds them back since."""
        return self.patch is not None

    @contextmanager
    def under_way(self, branches: int) -> Iterator[None]:
        """So many more branches are under way."""
        self._under_way += branches
        if self._under_way > SEVERAL and not self.kept:
            self.patch = next((patch for patch in PATCHES if workflow.patched(patch)), None)
        try:
            yield
        finally:
            self._under_way -= branches

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """The branches of a gather begin. No step goes on before all have: a later one may wait for what it does."""
        self._gathers_beginning += 1
        try:
            yield
        finally:
            self._gathers_beginning -= 1

    async def begin_branch(self) -> None:
        """Wait until one more branch may begin."""
        if self.kept and (self._branches or not self._has_room()):
            await self._turn(self._branches)

    async def begin_step(self) -> None:
        """Wait until one more step of a branch may begin."""
        if self.kept and (self._gathers_beginning or self._steps or not self._has_room()):
            await self._turn(self._steps)

    def _has_room(self) -> bool:
        task = workflow.info().get_current_history_length()
        if task != self._task:
            self._task, self._begun = task, 0
        self._begun += 1
        return self._begun <= AT_ONCE

    async def _turn(self, line: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        if self._letting is None:
            self._letting = asyncio.ensure_future(self._let_all())
        await turn

    async def _let_all(self) -> None:
        """Let those who wait go on, so many in each task, until nobody waits."""
        try:
            while self._branches or self._steps:
                await workflow.wait_condition(self._may_let)
                if self._has_room():
                    turn = (self._branches or self._steps).popleft()
                    if not turn.done():  # whoever waited may have been cancelled
                        turn.set_result(None)
                else:
                    await self._complete_task()
        except (Exception, Signal) as error:
            for turn in (*self._branches, *self._steps):
                if not turn.done():
                    turn.set_exception(error)
            self._branches.clear()
            self._steps.clear()
        finally:
            self._letting = None

    def _may_let(self) -> bool:
        return bool(self._branches) or not (self._gathers_beginning or self._registering())
