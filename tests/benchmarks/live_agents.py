"""``python -m tests.benchmarks.live_agents``: many agents at a time that wait for a person, each with a conversation.

They come in ten equal waves. After each wave it says what an agent took to come to its question, and how much memory
the process and how much disk the file take for each live agent. With ``--kill`` the process that holds them is killed
then, and another one opens the file. At the end all are answered, in ten waves too, and each must have paid exactly
once. Time is CPU time of the process, all its threads together: other processes may use the machine. Exits with 1 if an
agent of the last wave took more than `LIMIT` times as long as one of the first.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import MAX_RESTING, ReplayBackend
from durably.core import Agent, current_step, tool
from durably.core.messages import AssistantMessage, JSONObject, ToolCall, assistant
from durably.core.model import ModelRequest, ModelResponse
from tests.benchmarks.events import memory
from tests.benchmarks.loop_watch import loop_watch

LIMIT = 2.0
WAVES = 10
AT_ONCE = 100
"""How many are started, or answered, before the next ones wait for them."""

PAGES = 10
"""In so many results of a tool the conversation comes."""

ALL_WAIT = "all wait"
"""What a process says that is going to be killed."""

paid: Counter[str] = Counter()


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
        paid[current_step().run_id] += 1
        return "paid"

    return Agent("clerk", model=Reader(), instructions="", tools=[read, pay], max_iterations=PAGES + 5)


def waves(count: int) -> list[range]:
    """Ten equal parts of so many agents."""
    return [range(count * number // WAVES, count * (number + 1) // WAVES) for number in range(WAVES)]


async def begin(backend: ReplayBackend, agent: Agent, numbers: range) -> float:
    """Start agents, and wait until all of them wait; seconds of CPU for one."""
    began = time.process_time()
    for place in range(0, len(numbers), AT_ONCE):
        for number in numbers[place : place + AT_ONCE]:
            await backend.start(agent, "Pay for it.", run_id=f"run-{number}")
        await backend.drain()
    return (time.process_time() - began) / len(numbers)


async def answer(backend: ReplayBackend, asked: list[str]) -> float:
    """Answer questions, and wait for the ends of their runs; seconds of CPU for one."""
    began = time.process_time()
    for place in range(0, len(asked), AT_ONCE):
        portion = asked[place : place + AT_ONCE]
        for approval in portion:
            await backend.approve(approval)
        for approval in portion:
            run = await backend.run(approval.partition("::")[0])
            assert (await run.result()).text == "Done."
            await asyncio.sleep(0)  # to read a conversation takes a millisecond
    return (time.process_time() - began) / len(asked)


class Table:
    """What is printed of one engine.

    Args:
        name: The engine.
        path: Its file.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._before = memory()

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"{self._name:<8}{text}", flush=True)

    def wave(self, live: int, per: int, what: str, seconds: float) -> None:
        """Print a line on a wave, with memory and disk for each of so many agents."""
        files = sum(each.stat().st_size for each in self._path.parent.iterdir())
        self.say(
            f"{live:>7,} {what}{seconds * 1e3:>8.1f} ms of CPU an agent{(memory() - self._before) * 1e3 / per:>9.1f} kB"
            f" of memory{files / 1e3 / per:>9.1f} kB on disk"
        )


async def fill(backend: ReplayBackend, agent: Agent, runs: int, table: Table) -> list[float]:
    """Start all agents; what one of each wave took."""
    taken = []
    with loop_watch() as watch:
        for numbers in waves(runs):
            taken.append(await begin(backend, agent, numbers))
            table.wave(numbers.stop, numbers.stop, "live", taken[-1])
    table.say(str(watch))
    return taken


async def empty(backend: ReplayBackend, runs: int, table: Table) -> list[float]:
    """Answer all agents; what one of each wave took. Raises AssertionError if one is lost, or has paid twice."""
    began, asked = time.perf_counter(), []
    with loop_watch() as watch:
        page = await backend.approvals(limit=runs + 1)
        asked = [each.id for each in page]
        table.say(f"{len(asked):>7,} questions listed in {time.perf_counter() - began:.2f} s; {watch}")
        first = await backend.approvals(limit=AT_ONCE)
        assert [each.id for each in first] == asked[:AT_ONCE]
    taken = []
    with loop_watch() as watch:
        for numbers in waves(runs):
            taken.append(await answer(backend, asked[numbers.start : numbers.stop]))
            table.wave(runs - numbers.stop, runs, "left", taken[-1])
    table.say(str(watch))
    assert paid == {f"run-{number}": 1 for number in range(runs)}, "an agent was lost, or paid twice"
    assert await backend.approvals() == []
    table.say("each has paid once")
    return taken


async def take_over(backend: ReplayBackend, runs: int, began: float, table: Table) -> None:
    """Wait until a worker has all agents of one that was killed, and nothing more to do for them."""
    used = time.process_time()
    with loop_watch() as watch:
        table.say(f"opened {time.perf_counter() - began:.2f} s after the kill")
        while ((await backend.workers())[0].runs or 0) < runs:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        taken, used = time.perf_counter() - began, time.process_time() - used
        await backend.drain()
    table.wave(runs, runs, "taken over", used / runs)
    table.say(f"in {taken:.2f} s, quiet after {time.perf_counter() - began:.2f} s; {watch}")


async def measure(name: str, opened: Callable[[Agent], ReplayBackend], path: Path, given: argparse.Namespace) -> bool:
    """Print the table of one engine; whether the limit was kept."""
    agent, table, taken = clerk(given.bytes), Table(name, path), [0.0]
    began = time.perf_counter()
    async with opened(agent) as backend:
        if given.kill:
            await take_over(backend, given.runs, began, table)
        else:
            taken = await fill(backend, agent, given.runs, table)
        if given.into is not None:
            print(ALL_WAIT, flush=True)
            await asyncio.sleep(3600)
        answered = await empty(backend, given.runs, table)
    return taken[-1] <= LIMIT * taken[0] and answered[-1] <= LIMIT * answered[0]


def fill_and_kill(path: Path, given: argparse.Namespace) -> None:
    """Have another process start all agents, and kill it."""
    command = [sys.executable, "-m", "tests.benchmarks.live_agents", "--engine", "sqlite", "--into", str(path)]
    command += ["--runs", str(given.runs), "--bytes", str(given.bytes), "--resting", str(given.resting)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == ALL_WAIT:
                break
            print(line, end="", flush=True)
        process.kill()


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks.live_agents", description=__doc__)
    options.add_argument("--runs", type=int, default=1_000)
    options.add_argument("--bytes", type=int, default=100_000, help="of each conversation")
    options.add_argument("--engine", choices=["memory", "sqlite"], action="append")
    options.add_argument("--resting", type=int, default=MAX_RESTING, help="waiting runs that stay in memory")
    options.add_argument("--kill", action="store_true", help="kill the worker when all wait; SQLite only")
    options.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    kept = True
    for name in ["sqlite"] if given.kill or given.into else given.engine or ["memory", "sqlite"]:
        with tempfile.TemporaryDirectory() as directory:
            path = given.into or Path(directory) / "runs.db"
            engines: dict[str, Callable[[Agent], ReplayBackend]] = {
                "memory": lambda agent: MemoryBackend([agent], max_resting=given.resting),
                "sqlite": lambda agent, path=path: SQLiteBackend(  # type: ignore[misc]
                    path, [agent], max_resting=given.resting
                ),
            }
            if given.kill:
                fill_and_kill(path, given)
            kept = asyncio.run(measure(name, engines[name], path, given)) and kept
    return 0 if kept else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
