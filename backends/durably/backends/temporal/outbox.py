"""What one process has to say to one hub: what is asked while a signal is under way goes with the next one."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

__all__ = ["Outbox"]

MOST = 100
"""So many messages go with one signal."""

SIZE = 500_000
"""And so many characters, unless one message alone has more. Temporal takes up to 2 MB."""


class Outbox:
    """Sends messages in their order, in as few signals as the other side is quick.

    Args:
        send: Sends a signal with some of them.
    """

    def __init__(self, send: Callable[[Sequence[Any]], Awaitable[None]]) -> None:
        self._send = send
        self._messages: deque[tuple[Any, int, asyncio.Future[None]]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def add(self, message: Any) -> None:
        """Send one more message; raises what its signal raises."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._messages.append((message, len(json.dumps(message)), sent))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        await sent

    async def _send_all(self) -> None:
        try:
            while self._messages:
                await self._send_some()
        finally:
            self._sending = None
            for _, _, sent in self._messages:  # the loop is being closed
                sent.cancel()

    async def _send_some(self) -> None:
        messages: list[Any] = []
        waiting: list[asyncio.Future[None]] = []
        room = SIZE
        while self._messages and len(messages) < MOST and (self._messages[0][1] <= room or not messages):
            message, size, sent = self._messages.popleft()
            room -= size
            messages.append(message)
            waiting.append(sent)
        try:
            await self._send(messages)
        except Exception as error:
            for sent in waiting:
                if not sent.done():
                    sent.set_exception(error)
        else:
            for sent in waiting:
                if not sent.done():  # whoever asked may have given up
                    sent.set_result(None)
