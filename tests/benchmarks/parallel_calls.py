"""Two hundred model calls at once, beside one client of the raw SDK: ``python -m tests.benchmarks.parallel_calls``.

The server is another process. It prints, for each SDK, how long the event loop stood still at most, how long all calls
took, and the most memory that Python objects held. Each number is the best of several rounds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import anthropic
import openai

from durably.core import user
from durably.core.model import ModelRequest
from durably.providers import Key
from durably.providers.anthropic import AnthropicModel
from durably.providers.openai import OpenAIModel
from durably.testing import LLMServer

CALLS = 200
ROUNDS = 5
KEY = "DURABLY_BENCHMARK_KEY"
TEXT = "It is sunny. " * 50
REQUEST = ModelRequest(system="Be brief.", messages=[user("How is the weather? " * 50)])

Call = Callable[[], Awaitable[object]]


@dataclass
class Measured:
    """One way to make the calls.

    Attributes:
        stall: Seconds that the loop stood still, at most.
        took: Seconds for all calls.
        memory: The most bytes that were held.
    """

    stall: float
    took: float
    memory: int


async def measured(call: Call, *, memory: bool) -> Measured:
    """Make all calls at once, and watch the loop."""
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - begun - 0.001)

    gc.collect()
    if memory:
        tracemalloc.start()
    watcher = asyncio.create_task(watch())
    begun = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(CALLS)))
    took = time.perf_counter() - begun
    watcher.cancel()
    peak = tracemalloc.get_traced_memory()[1] if memory else 0
    tracemalloc.stop()
    return Measured(worst, took, peak)


async def best(call: Call) -> Measured:
    """The best of several rounds; memory is looked at in a round of its own, as that slows everything down."""
    await call()
    rounds = [await measured(call, memory=False) for _ in range(ROUNDS)]
    held = await measured(call, memory=True)
    return Measured(min(each.stall for each in rounds), min(each.took for each in rounds), held.memory)


async def compare(url: str) -> dict[str, dict[str, Measured]]:
    """Every SDK: raw, and through the library."""
    place = Key(env=KEY)
    prompt = str(REQUEST.messages[0].content)  # type: ignore[union-attr]
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0, timeout=600) as claude:
        ours = AnthropicModel("claude-opus-4-6", key=place, base_url=url, cache=False)
        made = {
            "anthropic": {
                "raw": await best(
                    lambda: claude.messages.create(
                        model="claude-opus-4-6",
                        max_tokens=8192,
                        system="Be brief.",
                        messages=[{"role": "user", "content": prompt}],
                    )
                ),
                "durably": await best(lambda: ours.complete(REQUEST)),
            }
        }
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0, timeout=600) as client:
        theirs = OpenAIModel("gpt-5", key=place, base_url=f"{url}/v1")
        made["openai chat"] = {
            "raw": await best(
                lambda: client.chat.completions.create(
                    model="gpt-5",
                    messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}],
                )
            ),
            "durably": await best(lambda: theirs.complete(REQUEST)),
        }
    return made


def serve(sender: Connection) -> None:
    """The server, in a process of its own."""

    async def run() -> None:
        async with LLMServer(lambda request: TEXT) as server:
            sender.send(server.url)
            while True:
                server.received.clear()
                server.requests.clear()
                await asyncio.sleep(1)

    asyncio.run(run())


def main() -> None:
    """Measure and print."""
    os.environ[KEY] = "k-0123456789"
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    process.start()
    try:
        made = asyncio.run(compare(receiver.recv()))
    finally:
        process.terminate()
    for name, ways in made.items():
        raw, ours = ways["raw"], ways["durably"]
        for label, of in ((f"{name}: raw", raw), (f"{name}: durably", ours)):
            stall, memory = f"{of.stall * 1000:.0f} ms", f"{of.memory / 1e6:.1f} MB"
            print(f"{label:22} stall {stall:>8}   all {of.took:6.2f} s   memory {memory:>8}")
        ratios = {"stall": ours.stall / raw.stall, "took": ours.took / raw.took, "memory": ours.memory / raw.memory}
        print(json.dumps({name: round(value, 2) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
