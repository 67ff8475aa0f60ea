"""An agent on Temporal beside temporalio alone, and beside pydantic-ai: time a turn, and bytes of history.

All on one server, in one process, each with a worker of its own that is warm. A round runs the agent on temporalio
alone and on durably, in alternating order; each ratio is the median of the rounds' ratios, so that a busy machine
slows both. Exits with 1 if a limit is not kept.

A turn is timed by the server's own clock, from the first model call to the end of the run. What a run costs besides
(durably reads the instructions and the session in two steps of their own, and reads the conversation back for the
result) is in the time of the whole run, which has no limit where a run is short. pydantic-ai has none: it is there for
scale.

Called as: python -m tests.benchmarks.temporal [TURNS ...]
"""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from temporalio.client import Client, WorkflowFailureError
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner

from durably.backends.temporal import TemporalBackend
from durably.core import Agent, tool
from durably.core.ids import new_id
from durably.core.messages import UserMessage
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call
from durably.testing.models.scripted import Reply
from tests.benchmarks.bare import open_bare
from tests.benchmarks.pydantic_agent import open_pydantic_ai
from tests.benchmarks.report import Report

SIZES = (200, 4_000)
ROUNDS = {10: 9, 50: 5, 100: 3, 200: 3, 1_000: 1}
"""How often each length is measured: a short run is over before noise has averaged out."""

FREE = 50
"""The length that is measured without Temporal's sandbox too, on both sides."""

LONG = 1_000
SLOWER = 1.1
LARGER = 1.5

CALLS = ("think", "agent__orders__model_request")
"""What an activity is called that asks the model, here and by pydantic-ai."""

Run = Callable[[int, int], Awaitable[str]]


def answer(request: ModelRequest) -> Reply:
    """What a scripted model answers. The question says how many turns, and how long a result is."""
    question = request.messages[0]
    assert isinstance(question, UserMessage)
    turns, size = map(int, str(question.content).split())
    return "All looked up." if request.turn == turns else call("get_order", order_id=str(request.turn), size=size)


@tool(effect="pure")
async def get_order(order_id: str, size: int) -> str:
    """Look up one order."""
    return "x" * size


orders = Agent(
    "orders",
    model=ScriptedModel(answer),
    instructions="You are brief.",
    tools=[get_order],
    max_iterations=LONG + 1,
)


@asynccontextmanager
async def open_durably(client: Client, **options: Any) -> AsyncIterator[Run]:
    """A worker; yields what runs the agent on it and returns the run's id."""
    async with TemporalBackend(client, task_queue=new_id(), functions=[orders], **options) as backend:

        async def run(turns: int, size: int) -> str:
            started = await backend.start(orders, f"{turns} {size}")
            result = await started.result()
            assert result.iterations == turns + 1
            return started.id

        yield run


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        run: Seconds from its start to its result.
        turns: Seconds from its first model call to its end, as the server saw it.
        size: Bytes of its history, or of its histories if it went on in fresh ones.
        histories: How many it has.
    """

    run: float
    turns: float
    size: int
    histories: int


async def measure(client: Client, run: Run, turns: int, size: int) -> Measured:
    """Time a run, and ask the server for its history."""
    gc.collect()
    started = time.perf_counter()
    run_id = await run(turns, size)
    seconds = time.perf_counter() - started
    last = await client.get_workflow_handle(run_id).describe()
    history: str | None = last.raw_description.workflow_execution_info.first_run_id
    total, histories, begun, ended = 0, 0, 0.0, 0.0
    while history:
        handle = client.get_workflow_handle(run_id, run_id=history)
        total += (await handle.describe()).raw_description.workflow_execution_info.history_size_bytes
        histories += 1
        events = [event async for event in handle.fetch_history_events()]
        asked = (each for each in events if each.activity_task_scheduled_event_attributes.activity_type.name in CALLS)
        begun = begun or next(asked).event_time.ToMicroseconds() / 1e6
        ended = events[-1].event_time.ToMicroseconds() / 1e6
        history = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return Measured(seconds, ended - begun, total, histories)


async def rounds(client: Client, other: Run, ours: Run, turns: int, size: int) -> list[tuple[Measured, Measured]]:
    """Both, again and again; whoever was second begins the next round."""
    pairs = []
    for index in range(ROUNDS.get(turns, 3)):
        if index % 2:
            mine = await measure(client, ours, turns, size)
            pairs.append((await measure(client, other, turns, size), mine))
        else:
            its = await measure(client, other, turns, size)
            pairs.append((its, await measure(client, ours, turns, size)))
    return pairs


def add(report: Report, other: str, pairs: list[tuple[Measured, Measured]], turns: int, size: int) -> None:
    """The rows of one case."""
    case = (f"{turns:,}", f"{size:,}")

    def a_turn(seconds: float) -> str:
        return f"{seconds / turns * 1e3:,.1f} ms/turn"

    whole = SLOWER if turns >= FREE else None
    report.add(f"{other}: a turn", case, [(a.turns, b.turns) for a, b in pairs], a_turn, SLOWER)
    report.add(f"{other}: a run", case, [(a.run, b.run) for a, b in pairs], a_turn, whole)
    report.add(f"{other}: history", case, [(a.size, b.size) for a, b in pairs], kilobytes, LARGER)


def kilobytes(size: float) -> str:
    return f"{size / 1e3:,.0f} kB"


async def for_scale(report: Report, client: Client, theirs: Run, ours: Measured, turns: int, size: int) -> None:
    """pydantic-ai once, beside the last of ours."""
    case = (f"{turns:,}", f"{size:,}")
    try:
        its = await measure(client, theirs, turns, size)
    except WorkflowFailureError as error:
        report.note("pydantic-ai: a run", case, f"[dim]{error.cause}[/]", "done")
        return
    report.add("pydantic-ai: a run", case, [(its.run / turns, ours.run / turns)], "{:.3f} s/turn".format)
    report.add("pydantic-ai: history", case, [(its.size, ours.size)], kilobytes)


async def compare(report: Report, client: Client, lengths: list[int]) -> None:
    """All cases, on workers that stay up."""
    unsandboxed: dict[str, Any] = {"workflow_runner": UnsandboxedWorkflowRunner()}
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(open_bare(client))
        ours = await stack.enter_async_context(open_durably(client, continue_after=LONG * 4))
        theirs = await stack.enter_async_context(open_pydantic_ai(client))
        free_bare = await stack.enter_async_context(open_bare(client, **unsandboxed))
        free_ours = await stack.enter_async_context(open_durably(client, worker_options=unsandboxed))
        for run in (bare, ours, theirs, free_bare, free_ours):
            await run(10, 10)  # a worker's first run is slow
        cases = [(turns, size) for size in SIZES for turns in lengths if turns < LONG or size == SIZES[-1]]
        for turns, size in track(cases, description="measuring"):
            pairs = await rounds(client, bare, ours, turns, size)
            add(report, "temporalio", pairs, turns, size)
            if turns == FREE:
                add(report, "unsandboxed", await rounds(client, free_bare, free_ours, turns, size), turns, size)
            if turns < LONG:
                await for_scale(report, client, theirs, pairs[-1][1], turns, size)
            else:
                assert pairs[-1][1].histories > 1, "it was to go on in a fresh history"


async def main(lengths: list[int]) -> int:
    """Print the table."""
    runtime = Runtime(telemetry=TelemetryConfig(logging=LoggingConfig("error")))  # another's payloads are large
    server = await WorkflowEnvironment.start_local(
        runtime=runtime,
        dev_server_existing_path=str(Path(sysconfig.get_path("scripts")) / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=["--dynamic-config-value", "history.transferProcessorMaxPollRPS=10000"],
    )
    report = Report("an agent on Temporal, beside the same by other means", "other")
    async with server:
        await compare(report, server.client, lengths)
    Console(width=140).print(report.table)
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main([int(each) for each in sys.argv[1:]] or list(ROUNDS))))
