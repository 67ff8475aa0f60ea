"""A worker process on a SQLite file that serves one function until it is told to stop.

Called as: client_child.py DATABASE
"""

from __future__ import annotations

import asyncio
import sys

from durably.backends import SQLiteBackend
from durably.core import Context, function, run_worker


@function("count", triggers=["counted"])
async def count(ctx: Context[int]) -> int:
    return await ctx.step.run("double", _double, ctx.input)


def _double(number: int) -> int:
    return 2 * number


if __name__ == "__main__":
    asyncio.run(run_worker(SQLiteBackend(sys.argv[1], [count])))
