"""How many calls of Python functions one turn of an agent makes: one call of the model, and one of a tool.

All threads count, and so does a coroutine that goes on. The shortest turn of a run counts: a worker's heartbeats fall
into some.

Called as: python -m tests.benchmarks.turn_calls [ENGINE ...]. It names the functions, those called most often first.
Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.core import Agent, tool
from durably.testing import ScriptedModel, call
from tests.benchmarks.agent import MESSAGE
from tests.benchmarks.entries import profiled, quick_commits

__all__ = ["LIMITS", "turn_calls"]

LIMITS = {"memory": 310, "sqlite": 350}
"""What a turn may make at most."""

TURNS = 12
SKIPPED = 2
"""The first turns: something is looked up once a run."""


class Count:
    """The calls since the last look, in all threads that are started while it is installed."""

    def __init__(self) -> None:
        self.turns: list[Counter[CodeType]] = []
        self._calls: Counter[CodeType] = Counter()

    def look(self) -> None:
        """End a turn."""
        self.turns.append(self._calls)
        self._calls = Counter()

    @contextmanager
    def installed(self) -> Iterator[None]:
        with profiled(self._on_event):
            yield

    def _on_event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self._calls[frame.f_code] += 1


@asynccontextmanager
async def opened(engine: str, agent: Agent[Any, Any]) -> AsyncIterator[ReplayBackend]:
    if engine == "memory":
        async with MemoryBackend([agent]) as memory:
            yield memory
        return
    with tempfile.TemporaryDirectory() as directory:
        async with SQLiteBackend(Path(directory) / "runs.db", [agent]) as sqlite:
            yield sqlite


def turn_calls(engine: str) -> Counter[CodeType]:
    """The calls of the shortest turn of a run.

    Args:
        engine: One of ``LIMITS``.
    """
    return asyncio.run(_turn_calls(engine))


async def _turn_calls(engine: str) -> Counter[CodeType]:
    count = Count()

    @tool(effect="pure")
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        count.look()
        return "x" * 200

    model = ScriptedModel(*[call("get_order", order_id=str(turn)) for turn in range(TURNS)], "Done.")
    agent = Agent("orders", model=model, instructions="", tools=[get_order], max_iterations=TURNS + 1)
    with count.installed(), quick_commits():
        async with opened(engine, agent) as backend:
            await backend.invoke(agent, MESSAGE)
    if len(count.turns) != TURNS:
        raise RuntimeError(f"{len(count.turns)} turns were counted, of {TURNS}")
    return min(count.turns[SKIPPED:], key=Counter.total)


def main(engines: list[str]) -> int:
    """Print each engine's calls."""
    kept = True
    for engine in engines:
        found = turn_calls(engine)
        print(f"\n{engine}: {found.total()} calls a turn, the limit is {LIMITS[engine]}\n")
        for code, number in found.most_common():
            print(f"{number:4}  {code.co_qualname}  {'/'.join(Path(code.co_filename).parts[-2:])}")
        kept = kept and found.total() <= LIMITS[engine]
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(LIMITS)))
