"""``python -m tests.benchmarks.live_agents``: many agents at a time that wait for a person, each with a conversation.

They come in ten equal waves. After each wave it says what an agent took to come to its question, and how much memory
the process and how much disk the file take for each live agent. At the end some are answered. Exits with 1 if an agent
of the last wave took more than `LIMIT` times as long as one of the first.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import MAX_RESTING, ReplayBackend
from durably.core import Agent, current_step, tool
from durably.core.messages import AssistantMessage, JSONObject, ToolCall, assistant
from durably.core.model import ModelRequest, ModelResponse
from tests.benchmarks.events import memory

LIMIT = 2.0
WAVES = 10
AT_ONCE = 100
"""How many are started before the next ones wait for them."""

PAGES = 10
"""In so many results of a tool the conversation comes."""

ANSWERED = 20


class Reader:
    """A model that reads each page, asks for a payment, and is done. Unlike a scripted model it keeps no request."""

    name = "reader"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        turn = request.turn
        if turn > PAGES:
            return ModelResponse(message=assistant("Done."))
        what: tuple[str, JSONObject] = ("read", {"page": turn}) if turn < PAGES else ("pay", {})
        called = ToolCall(id=f"call_{turn}", name=what[0], arguments=what[1])
        return ModelResponse(message=AssistantMessage(parts=[called]))


def clerk(size: int) -> Agent:
    """An agent that reads so many bytes, and then asks a person."""

    @tool
    async def read(page: int) -> str:
        """Read a page, which no other agent reads."""
        return Random(f"{current_step().run_id} {page}").randbytes(size // PAGES // 2).hex()

    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    return Agent("clerk", model=Reader(), instructions="", tools=[read, pay], max_iterations=PAGES + 5)


async def wave(backend: ReplayBackend, agent: Agent, run_ids: list[str]) -> float:
    """Start agents, and wait until all of them wait; seconds for one."""
    began = time.perf_counter()
    for place in range(0, len(run_ids), AT_ONCE):
        for run_id in run_ids[place : place + AT_ONCE]:
            await backend.start(agent, "Pay for it.", run_id=run_id)
        await backend.drain()
    return (time.perf_counter() - began) / len(run_ids)


async def answer(backend: ReplayBackend, count: int) -> float:
    """Answer some of those who wait; seconds from the answer to the result of one."""
    asked = await backend.approvals(limit=count)
    began = time.perf_counter()
    for each in asked:
        await backend.approve(each.id)
        assert (await (await backend.run(each.run_id)).result()).text == "Done."
    return (time.perf_counter() - began) / len(asked)


async def measure(name: str, opened: Callable[[Agent], ReplayBackend], path: Path, runs: int, size: int) -> bool:
    """Print the table of one engine; whether the limit was kept."""
    agent, taken = clerk(size), []
    async with opened(agent) as backend:
        before = memory()
        for number in range(WAVES):
            first, last = runs * number // WAVES, runs * (number + 1) // WAVES
            taken.append(await wave(backend, agent, [f"run-{each}" for each in range(first, last)]))
            files = sum(each.stat().st_size for each in path.parent.iterdir())
            print(
                f"{name:<8}{last:>7,} live{taken[-1] * 1e3:>8.1f} ms an agent"
                f"{(memory() - before) * 1e3 / last:>9.1f} kB of memory{files / 1e3 / last:>9.1f} kB on disk",
                flush=True,
            )
        began = time.perf_counter()
        seconds = await answer(backend, ANSWERED)
        print(f"{name:<8}{seconds * 1e3:>8.1f} ms from an answer to the result", flush=True)
        print(f"{name:<8}{time.perf_counter() - began - seconds * ANSWERED:>8.2f} s to list {ANSWERED} questions")
    return taken[-1] <= LIMIT * taken[0]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks.live_agents", description=__doc__)
    options.add_argument("--runs", type=int, default=1_000)
    options.add_argument("--bytes", type=int, default=100_000, help="of each conversation")
    options.add_argument("--engine", choices=["memory", "sqlite"], action="append")
    options.add_argument("--resting", type=int, default=MAX_RESTING, help="waiting runs that stay in memory")
    given = options.parse_args()
    kept = True
    for name in given.engine or ["memory", "sqlite"]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "runs.db"
            engines: dict[str, Callable[[Agent], ReplayBackend]] = {
                "memory": lambda agent: MemoryBackend([agent], max_resting=given.resting),
                "sqlite": lambda agent, path=path: SQLiteBackend(  # type: ignore[misc]
                    path, [agent], max_resting=given.resting
                ),
            }
            kept = asyncio.run(measure(name, engines[name], path, given.runs, given.bytes)) and kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
