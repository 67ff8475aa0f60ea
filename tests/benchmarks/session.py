"""A session that goes on for ten thousand turns on SQLite: how large it becomes, and how long its turns take.

Called as: python -m tests.benchmarks.session [TURNS]. Each turn is a run of an agent in one session: a message and an
answer of 1 kB each, of words as people use them, so that they can be compressed about as well as their texts.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from durably.backends import SQLiteBackend
from durably.core import Agent, AgentInput, assistant
from durably.core.model import ModelRequest, ModelResponse, Usage

__all__ = ["Grown", "grow"]

TURNS = 10_000
WORDS = 40_000
"""How many words the speakers know: about as many as people do."""


class Speaker:
    """Says something else each time, and looks at nothing: what a turn takes is not its doing."""

    name = "speaker"

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "etaoinshrdlu"
        self._words = ["".join(self._random.choices(letters, k=self._random.randint(2, 9))) for _ in range(WORDS)]
        # A few words are said most of the time, as in every language.
        self._weights = [1 / (place + 10) for place in range(WORDS)]

    def say(self) -> str:
        """About 1 kB."""
        return " ".join(self._random.choices(self._words, self._weights, k=155))[:1000]

    async def complete(self, request: ModelRequest) -> ModelResponse:
        assert len(request.messages) == 2 * request.turn + 1, "it is asked with the whole session"
        return ModelResponse(message=assistant(self.say()), usage=Usage(input_tokens=1000, output_tokens=250))


@dataclass(frozen=True)
class Grown:
    """What a session came to.

    Attributes:
        turns: How many turns it has.
        said: Bytes of its messages, as JSON.
        session: Bytes of the session's tables.
        runs: Bytes of the tables of the runs.
        file: Bytes of the file.
        times: Seconds of processor time of each turn, in order: a busy machine says nothing of it.
    """

    turns: int
    said: int
    session: int
    runs: int
    file: int
    times: list[float]

    def quick(self, share: float) -> float:
        """The median seconds of the turns around a place: 0 for the first, 1 for the last."""
        width = max(1, self.turns // 20)
        start = int((self.turns - width) * share)
        return median(self.times[start : start + width])


async def grow(path: Path, turns: int) -> Grown:
    """Run so many turns of one session."""
    model = Speaker(0)
    agent = Agent("chat", model=model, instructions="Be brief.", sessions="backend")
    times, said = [], 0
    async with SQLiteBackend(path, [agent]) as backend:
        for _ in range(turns):
            message = model.say()
            began = time.process_time()
            result = await backend.invoke(agent, AgentInput(message=message, session_key="chat"))
            times.append(time.process_time() - began)
            said += sum(len(each.model_dump_json()) for each in result.messages)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes = dict(db.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
    session = sum(size for name, size in sizes.items() if "session_keys" in name or name in ("appends", "sessions"))
    return Grown(turns, said, session, sum(sizes.values()) - session, path.stat().st_size, times)


def main() -> None:
    """Print the numbers."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else TURNS
    with tempfile.TemporaryDirectory() as directory:
        grown = asyncio.run(grow(Path(directory, "runs.db"), turns))
    print(f"{turns:,} turns, {grown.said / 2**20:.1f} MiB of messages")
    for name, size in (("the session", grown.session), ("its runs", grown.runs), ("the file", grown.file)):
        print(f"  {name:<12} {size / 2**20:8.1f} MiB  {size / grown.said:5.2f} x the messages")
    for place in (0.0, 0.25, 0.5, 0.75, 1.0):
        print(f"  a turn at {place:4.0%}  {1000 * grown.quick(place):6.2f} ms")


if __name__ == "__main__":
    main()
