"""Writing to a SQLite file without holding up the event loop: changes that come together share one commit.

A change is made on the event loop, in the transaction that is open: that takes microseconds. What takes long is done in
a thread, while the loop goes on: the commit, which waits for the disk, and waiting for another process that has the
lock. Changes that come meanwhile wait for the next transaction, which takes all of them.

Each change stands by itself: it is undone alone if it fails. If the transaction itself fails, each of its changes is
made again, in one of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from durably.backends.replay.sqlite_file import SQLiteFile
from durably.core.errors import JournalError

__all__ = ["GroupCommit"]

T = TypeVar("T")

AT_ONCE = 0.001
"""Seconds that the loop waits for a commit where nobody else has anything to do: most disks are done by then."""

SETTLE_SECONDS = 0.0002
"""How often is looked whether the thread is done, where the loop must stand still for it."""

PORTION = 16
"""How many changes are told of in one turn of the loop."""

LARGEST = 250
"""How many changes one transaction takes at most: so long the loop is busy with it in one go."""


@dataclass(slots=True, eq=False)
class _Change:
    """A change, and who waits for it; a single one shares no transaction."""

    make: Callable[[], Any]
    then: Callable[[Any], None]
    otherwise: Callable[[BaseException], None] | None
    future: asyncio.Future[Any]
    result: Any = None
    is_single: bool = False

    def settle(self) -> None:
        """It is on the disk."""
        if not self.future.done():  # whoever waited may have been cancelled meanwhile
            self.future.set_result(self.result)  # who waits goes on before those whom `then` wakes, and after it
        try:
            self.then(self.result)
        except Exception as error:
            told = {"message": "what follows a change to the journal failed", "exception": error}
            self.future.get_loop().call_exception_handler(told)

    def fail(self, error: BaseException) -> None:
        """It was not made."""
        if self.otherwise is not None:
            self.otherwise(error)
        if not self.future.done():
            self.future.set_exception(error)
            if self.otherwise is not None:
                self.future.exception()  # it was told, whether anybody waits or not


@dataclass(slots=True, eq=False)
class _Task:
    """What the thread does once.

    Attributes:
        act: What.
        landed: Called on the loop with the error, or ``None``.
        loop: The loop.
        held: A lock that the loop waits for, released at the end; ``None`` if it does not wait.
        error: Why it failed.
        seconds: How long it took.
        done: Whether it is over.
    """

    act: Callable[[], None]
    landed: Callable[[_Task], None]
    loop: asyncio.AbstractEventLoop
    held: threading.Lock | None = None
    error: JournalError | None = None
    seconds: float = 0.0
    done: bool = False

    def run(self) -> None:
        """Do it, in the thread."""
        began = time.perf_counter()
        try:
            self.act()
        except JournalError as error:
            self.error = error
        self.seconds = time.perf_counter() - began
        self.done = True
        if self.held is not None:
            self.held.release()
        else:
            self.tell()

    def tell(self) -> None:
        """Have the loop go on with it."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self.landed, self)


class GroupCommit:
    """The changes of one process to a SQLite file.

    Args:
        file: The file.

    Attributes:
        largest: How many changes one transaction takes at most.
    """

    def __init__(self, file: SQLiteFile) -> None:
        self.largest = LARGEST
        self._file = file
        self._group: list[_Change] = []
        self._waiting: deque[_Change] = deque()
        self._made: deque[_Change] = deque()
        self._telling = False
        self._task: _Task | None = None
        self._quick = True
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def write(
        self,
        make: Callable[[], T],
        then: Callable[[T], None],
        otherwise: Callable[[BaseException], None] | None,
        *,
        alone: bool,
    ) -> asyncio.Future[T]:
        """Make a change. See :meth:`durably.backends.replay.journal.Journal.write`."""
        loop = asyncio.get_running_loop()
        change = _Change(make, then, otherwise, loop.create_future())
        if self._task is not None or self._waiting or len(self._group) >= self.largest:
            self._waiting.append(change)
            return change.future
        is_first = not self._group
        try:
            if is_first and not self._begin(loop):
                self._waiting.append(change)
                return change.future
        except JournalError as error:
            change.fail(error)
            return change.future
        self._make(change)
        if is_first and self._group:
            if alone and self._quick:
                self._commit(loop, wait=True)
            else:
                loop.call_soon(self._commit, loop)  # what else comes in this turn of the loop joins it
        return change.future

    def settle(self) -> None:
        """Finish all that waits, while the loop stands still: for those who write without this group."""
        while self._task is not None or self._group or self._waiting:
            if self._task is None:
                self._go_on((self._group or self._waiting)[0].future.get_loop())
            task = self._task
            while task is not None and not task.done:
                time.sleep(SETTLE_SECONDS)
            if task is not None:
                task.landed(task)
        while self._made:
            self._made.popleft().settle()

    async def finish(self) -> None:
        """Wait until all is made, or refused, that was asked for until now."""
        if self._task is not None or self._group or self._waiting or self._made:
            await asyncio.wait([self.write(lambda: None, lambda _: None, lambda _: None, alone=False)])

    def close(self) -> None:
        """Make what still waits, and end the thread."""
        self.settle()
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None

    # -- on the loop

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the changes that wait, and commit them."""
        while self._waiting and self._task is None and self._may_join(self._waiting[0]):
            try:
                if not self._group and not self._begin(loop):
                    return
            except JournalError as error:
                self.refuse(error)
                return
            self._make(self._waiting.popleft())
        if self._group:
            self._commit(loop)

    def _may_join(self, change: _Change) -> bool:
        if not self._group:
            return True
        return len(self._group) < self.largest and not change.is_single and not self._group[-1].is_single

    def _begin(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Open a transaction; ``False``: another process has the lock, and the thread waits for it."""
        self._file.apart = True
        try:
            if self._file.try_begin():
                return True
        except JournalError:
            self._file.apart = False
            raise
        self._start(_Task(self._file.begin, self._begun, loop))
        return False

    def _begun(self, task: _Task) -> None:
        """The thread has the lock, or has waited for long enough."""
        if task is not self._task:
            return
        self._task = None
        if task.error is not None:
            self._file.apart = False
            self.refuse(task.error)
            return
        self._make(self._waiting.popleft())
        self._go_on(task.loop)

    def refuse(self, error: BaseException) -> None:
        """Do not make what waits."""
        refused, self._waiting = self._waiting, deque()
        for change in refused:
            change.fail(error)

    def _make(self, change: _Change) -> None:
        """Make a change within the open transaction; if it fails, the others stand."""
        joins = bool(self._group)
        try:
            change.result = self._file.make(change.make, joins=joins)
        except BaseException as error:
            undone: list[_Change] = []
            if not self._file.in_transaction:
                self._file.apart = False
                undone, self._group = self._group, []
            change.fail(error)
            if undone:
                self._again(undone)
                loop = change.future.get_loop()
                loop.call_soon(self._go_on, loop)
        else:
            self._group.append(change)

    def _again(self, undone: Sequence[_Change]) -> None:
        """Have each of some changes made once more, before those that wait, in a transaction of its own."""
        for change in undone:
            change.is_single = True
        self._waiting.extendleft(reversed(undone))

    def _commit(self, loop: asyncio.AbstractEventLoop, *, wait: bool = False) -> None:
        """Have the thread commit what was made; with ``wait``, the loop stands still for it for a moment."""
        if self._task is not None or not self._group:
            return
        task = _Task(self._file.commit, self._landed, loop)
        held = threading.Lock() if wait else None
        if held is not None:
            held.acquire()
            task.held = held
        self._start(task)
        if held is None:
            return
        if held.acquire(timeout=AT_ONCE):
            self._landed(task)
            return
        task.held = None
        if task.done:  # the thread may have looked before that
            task.tell()

    def _landed(self, task: _Task) -> None:
        """The thread has committed the group, or could not."""
        if task is not self._task:
            return
        self._task = None
        self._quick = task.seconds <= AT_ONCE
        group, self._group = self._group, []
        if task.error is not None:
            self._file.rollback()
        self._file.apart = False
        if task.error is None:
            self._made.extend(group)
            if self._waiting:
                self._go_on(task.loop)  # the disk has something to do while the loop tells of what it has done
            self._tell(task.loop)
        elif len(group) == 1:
            group[0].fail(task.error)
            self._go_on(task.loop)
        else:
            self._again(group)
            self._go_on(task.loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell of what is on the disk, of some changes in each turn of the loop: each has somebody go on."""
        self._telling = False
        for _ in range(min(PORTION, len(self._made))):
            self._made.popleft().settle()
        if self._made and not self._telling:
            self._telling = True
            loop.call_soon(self._tell, loop)

    # -- the thread

    def _start(self, task: _Task) -> None:
        self._task = task
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"durably {self._file.path.name}", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task.run()
