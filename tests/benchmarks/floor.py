"""The floor: the same agent loop written by hand, with a list or one table as its whole journal, one row a step.

No keys, no checks, no retries, no types, no errors: what is left when only the records matter.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

Json = dict[str, Any]


class Rows(Protocol):
    """A journal: what was written before, and one more row; ``write`` may give what is to be awaited."""

    def read(self) -> list[str]: ...
    def write(self, row: str) -> Awaitable[None] | None: ...


class ListRows:
    """A list."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    def read(self) -> list[str]:
        return self.rows[:]

    def write(self, row: str) -> None:
        self.rows.append(row)


class TableRows:
    """A table in a WAL database with ``synchronous=FULL``."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, value TEXT NOT NULL)")

    def read(self) -> list[str]:
        return [value for (value,) in self.db.execute("SELECT value FROM rows ORDER BY n")]

    def write(self, row: str) -> None:
        self.db.execute("INSERT INTO rows (value) VALUES (?)", (row,))

    def close(self) -> None:
        self.db.close()


class ThreadRows:
    """The same table, written to in a thread: the event loop does not stand still while the disk is at work."""

    def __init__(self, path: Path) -> None:
        self._rows = TableRows(path)
        self._thread = ThreadPoolExecutor(1)

    def read(self) -> list[str]:
        return self._rows.read()

    def write(self, row: str) -> Awaitable[None]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._rows.write, row)

    def close(self) -> None:
        self._thread.shutdown()
        self._rows.close()


async def run_floor(turns: int, size: int, journal: Rows, stop_at: int | None = None) -> str:
    """The loop: answer from the journal as long as it lasts, then call and write.

    Args:
        turns: How many times the model calls the tool.
        size: How many characters the tool returns.
        journal: Where the rows are.
        stop_at: Give up before this turn, as a crash would.
    """
    rows = iter(journal.read())

    async def step(body: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        row = next(rows, None)
        if row is None:
            row = json.dumps(await body(*args), separators=(",", ":"))
            written = journal.write(row)
            if written is not None:
                await written
        return json.loads(row)

    async def think(messages: list[Json], turn: int) -> Json:
        message: Json = {"role": "assistant", "parts": [{"type": "text", "text": "All looked up."}]}
        if turn < turns:
            arguments = {"order_id": str(turn)}
            call = {"type": "tool_call", "id": f"call_{turn}_0", "name": "get_order", "arguments": arguments}
            message["parts"] = [call]
        usage = {"input_tokens": 10, "output_tokens": 5}
        return {"message": message, "usage": usage, "stop_reason": "tool_calls" if turn < turns else "end"}

    async def get_order(order_id: str) -> str:
        return result

    result = "x" * size
    messages: list[Json] = [{"role": "user", "content": "Look up every order."}]
    for turn in range(turns + 1):
        if turn == stop_at:
            break
        message = (await step(think, messages, turn))["message"]
        messages.append(message)
        for part in message["parts"]:
            if part["type"] == "tool_call":
                content = await step(get_order, part["arguments"]["order_id"])
                messages.append({"role": "tool", "call_id": part["id"], "name": part["name"], "content": content})
    text: str = messages[-1].get("parts", [{}])[0].get("text", "")
    return text
