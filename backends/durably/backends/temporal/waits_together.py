"""Waits of many branches of one run, registered together: an activity for each would be most of what they cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from durably.backends.temporal.commands import INLINE, Commands
from durably.backends.temporal.payloads import WAIT_TOGETHER, text_of
from durably.core.errors import Signal

__all__ = ["WaitsTogether"]

MOST = INLINE // 8
"""A wait of more characters is registered alone: what is known of several stands in the history as it is."""


class _Wait(NamedTuple):
    """A wait that is to be registered.

    Attributes:
        asked: Its key, the event's name, what must match, and what a record keeps of all that.
        size: How many characters that is.
        hub: The hub that will tell it, once that is known.
    """

    asked: tuple[str, str, dict[str, Any], str]
    size: int
    hub: asyncio.Future[str]


class WaitsTogether:
    """Registers the waits of one run that begin in one workflow task, in as few activities as take them.

    Args:
        run_id: The run.
        commands: How they are registered.
    """

    def __init__(self, run_id: str, commands: Commands) -> None:
        self._run_id = run_id
        self._commands = commands
        self._waits: list[_Wait] = []
        self._lots = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(self, key: str, name: str, match: dict[str, Any], asked: str) -> str | None:
        """Register one more wait; the hub that will tell it, or ``None`` if it is too large to be among others."""
        wait = (key, name, match, asked)
        text = json.dumps(wait, ensure_ascii=False)
        if len(text) > MOST or not self._commands.is_plain(text):
            return None
        hub: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waits.append(_Wait(wait, len(text) + 2, hub))
        if len(self._waits) == 1:
            self._spawn()  # its turn comes after all branches that are ready now
        return await hub

    def _spawn(self) -> None:
        task = asyncio.ensure_future(self._register_all())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _register_all(self) -> None:
        waits, self._waits = self._waits, []
        await asyncio.gather(*map(self._register_lot, _lots(waits)))

    async def _register_lot(self, waits: Sequence[_Wait]) -> None:
        self._lots += 1
        try:
            given = await self._commands.system(
                f"durably:wait:{self._lots}", WAIT_TOGETHER, self._run_id, [wait.asked for wait in waits]
            )
        except (Exception, Signal) as error:
            for wait in waits:
                if not wait.hub.done():
                    wait.hub.set_exception(error)
            return
        for wait, hub in zip(waits, json.loads(text_of(given)), strict=True):
            if not wait.hub.done():  # its branch may have been cancelled
                wait.hub.set_result(hub)


def _lots(waits: Sequence[_Wait]) -> Iterator[list[_Wait]]:
    """As many waits at a time as an argument of an activity has room for."""
    lot: list[_Wait] = []
    room = INLINE - MOST
    for wait in waits:
        if wait.size > room:
            yield lot
            lot, room = [], INLINE - MOST
        lot.append(wait)
        room -= wait.size
    yield lot
