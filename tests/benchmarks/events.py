"""Events on Temporal beside bare workflow starts and bare signals: how many a second, from several processes.

All on one development server, one after another in each round, with one worker for each side: bare workflows that are
started, events that start a function, bare signals to workflows that wait, events for runs that wait, each for a
hundred events at once. Beside them stand further waiters, so that it shows whether their number matters. Nothing may be
lost or doubled, no workflow task may fail, and the worker's memory may not grow from round to round; it does while its
cache of workflows fills. Exits with 1 if a limit is not kept.

Called as: python -m tests.benchmarks.events [--events 1000] [--waiters 2000] [--registered 20000] [--senders 8]
[--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from durably.backends.temporal import TemporalBackend
from durably.backends.temporal.payloads import DELIVER
from durably.backends.temporal.worker import with_shared_modules
from durably.core import Context, Event, Run, function
from durably.core.ids import new_id
from tests.benchmarks.bare_events import BareCrowd, BareStart
from tests.benchmarks.report import Report

T = TypeVar("T")

EACH = 100
"""For how many events one run waits at once."""

AT_ONCE = 16
"""How many requests one process has under way."""

SLOWER = {"started": 6.0, "told": 10.0}
"""How many times the time of a bare start, or of a bare signal, an event may take: it is several requests and tasks.

A hundred bare signals to one workflow share its tasks."""

GROWTH = 1.3
"""How many times its memory before the first round a worker may have after the last."""

FAILED_TASKS = re.compile(r"^(?:temporal_)?failed_workflow_tasks\S* ([0-9.e+]+)$", re.MULTILINE)


@function("bench-triggered", triggers=["bench/start"])
async def triggered(ctx: Context[dict[str, str]]) -> None:
    """Does nothing."""


@function("bench-waiting")
async def waiting(ctx: Context[list[str]]) -> list[str]:
    """Waits for an event of each name; what each of them had."""
    step = ctx.step
    waits = [partial(step.wait_for_event, "ear", "bench/wait", match={"to": name}) for name in ctx.input]
    return [event.data["to"] for event in await step.gather(*waits) if event is not None]


# -- what one process sends


async def _start_bare(client: Client, queue: str, number: str) -> None:
    await client.start_workflow(BareStart.run, id=number, task_queue=queue)


async def _send_start(client: Client, queue: str, number: str) -> None:
    await _backend(client, queue).send(Event("bench/start", {"n": number}))


async def _signal_bare(client: Client, queue: str, number: str) -> None:
    await client.get_workflow_handle(number.partition("/")[0]).signal(BareCrowd.tell, {"to": number})


async def _send_wait(client: Client, queue: str, number: str) -> None:
    await _backend(client, queue).send(Event("bench/wait", {"to": number}))


_backends: dict[str, TemporalBackend] = {}


def _backend(client: Client, queue: str) -> TemporalBackend:
    if queue not in _backends:
        _backends[queue] = TemporalBackend(client, task_queue=queue)
    return _backends[queue]


Send = Callable[[Client, str, str], Awaitable[None]]


def send_all(address: str, queue: str, send: Send, numbers: Sequence[str]) -> tuple[float, float]:
    """Send for each number; when it began and when it was done, in seconds since 1970."""
    return asyncio.run(_send_all(address, queue, send, numbers))


async def _send_all(address: str, queue: str, send: Send, numbers: Sequence[str]) -> tuple[float, float]:
    client = await Client.connect(address)
    _backends.clear()
    began = time.time()
    await in_turn([partial(send, client, queue, number) for number in numbers])
    return began, time.time()


async def in_turn(work: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Do all of it, so much at once; what comes of each."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(each: Callable[[], Awaitable[T]]) -> T:
        async with turn:
            return await each()

    return await asyncio.gather(*map(one, work))


def _crowds(waiters: int) -> dict[str, list[str]]:
    """The names for which each of some runs waits, by an id that begins each of them."""
    ids = [new_id() for _ in range(0, waiters, EACH)]
    return {
        each: [f"{each}/{number}" for number in range(min(EACH, waiters - place * EACH))]
        for place, each in enumerate(ids)
    }


# -- a round


@dataclass(frozen=True)
class Sizes:
    """How much is measured: see the options."""

    events: int
    waiters: int
    registered: int
    senders: int
    rounds: int


@dataclass(frozen=True)
class Taken:
    """Seconds from the first request.

    Attributes:
        sent: Until the last one was answered.
        done: Until the last workflow had ended.
    """

    sent: float
    done: float


class Bench:
    """The two workers, and the processes that send.

    Args:
        client: The way to the server.
        pool: The processes.
        backend: The worker of events.
        bare: The task queue of the bare worker.
        sizes: How much is measured.
    """

    def __init__(
        self, client: Client, pool: ProcessPoolExecutor, backend: TemporalBackend, bare: str, sizes: Sizes
    ) -> None:
        self._client = client
        self._pool = pool
        self._backend = backend
        self._bare = bare
        self._sizes = sizes

    async def round(self, events: int, waiters: int) -> dict[str, tuple[Taken, Taken]]:
        """The bare side and events: for what is started, and for what waits."""
        starts, crowds = [new_id() for _ in range(events)], _crowds(waiters)
        names = [name for crowd in crowds.values() for name in crowd]
        ours = self._backend.task_queue
        bare_start = await self._send(_start_bare, self._bare, starts, events, "BareStart")
        our_start = await self._send(_send_start, ours, starts, events, triggered.id)
        bare = partial(self._client.start_workflow, BareCrowd.run, task_queue=self._bare)
        await in_turn([partial(bare, len(crowd), id=each) for each, crowd in crowds.items()])
        bare_wait = await self._send(_signal_bare, self._bare, names, len(crowds), "BareCrowd")
        runs = await self.register(crowds)
        our_wait = await self._send(_send_wait, ours, names, len(crowds), waiting.id)
        for run, crowd in zip(runs, crowds.values(), strict=True):
            assert await run.result() == crowd
            assert await self._told(run) == len(crowd), "an event was told twice"
        return {"started": (bare_start, our_start), "told": (bare_wait, our_wait)}

    async def register(self, crowds: Mapping[str, Sequence[str]]) -> list[Run[Any]]:
        """Runs that wait, each for an event of each of its names."""
        runs = await in_turn([partial(self._backend.start, waiting, [*crowd]) for crowd in crowds.values()])
        for run, crowd in zip(runs, crowds.values(), strict=True):
            while await self._waits(run) < len(crowd):  # noqa: ASYNC110  # only the server knows
                await asyncio.sleep(0.2)
        print(f"{sum(map(len, crowds.values())):,} waiters are registered", file=sys.stderr, flush=True)
        return runs

    async def _waits(self, run: Run[Any]) -> int:
        return len([record for record in await run.history() if record.kind == "wait_for_event"])

    async def _told(self, run: Run[Any]) -> int:
        """How often a run was told of an event."""
        history = await self._client.get_workflow_handle(run.id).fetch_history()
        return len([e for e in history.events if e.workflow_execution_signaled_event_attributes.signal_name == DELIVER])

    async def _send(self, send: Send, queue: str, numbers: Sequence[str], ended: int, kind: str) -> Taken:
        """Send for each number, from all processes; then wait until so many workflows of a kind have ended."""
        expected = await self._count(kind, "Completed") + ended
        address = self._client.service_client.config.target_host
        shares = [numbers[place :: self._sizes.senders] for place in range(self._sizes.senders)]
        loop = asyncio.get_running_loop()
        spans = await asyncio.gather(
            *(loop.run_in_executor(self._pool, send_all, address, queue, send, share) for share in shares)
        )
        began = min(first for first, _ in spans)
        while await self._count(kind, "Completed") < expected:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        done = time.time()
        await asyncio.sleep(0.5)  # one that is doubled would come behind
        assert await self._count(kind, "Completed") == expected, f"{kind}: more have ended than were sent"
        assert await self._count(kind, "Failed") == 0
        print(f"{len(numbers):,} for {kind}: {done - began:,.1f} s", file=sys.stderr, flush=True)
        return Taken(max(last for _, last in spans) - began, done - began)

    async def _count(self, kind: str, status: str) -> int:
        found = await self._client.count_workflows(f"WorkflowType = '{kind}' AND ExecutionStatus = '{status}'")
        return found.count


def memory() -> float:
    """Megabytes that this process holds, the workers among them."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def failed_tasks(port: int) -> float:
    """How many workflow tasks have failed, as the server counts them."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    return sum(float(each) for each in FAILED_TASKS.findall(text))


def add(report: Report, name: str, beside: int, count: int, pairs: Sequence[tuple[Taken, Taken]]) -> None:
    """The rows of one case: times for one event, and how many that is a second."""

    def each(seconds: float) -> str:
        return f"{seconds / count * 1e3:.1f} ms, {count / seconds:,.0f}/s"

    case = (f"{count:,}", "")
    what = f"{name}, beside {beside:,} waiters"
    report.add(f"{what}: sent", case, [(bare.sent, ours.sent) for bare, ours in pairs], each)
    report.add(f"{what}: done", case, [(bare.done, ours.done) for bare, ours in pairs], each, SLOWER[name])


async def measure(report: Report, bench: Bench, sizes: Sizes) -> None:
    """All rounds, first without further waiters and then beside them."""
    await bench.round(100, EACH)  # workers, and processes, are slow at first
    for beside in sorted({0, sizes.registered}):
        if beside:
            began = time.time()
            await bench.register(_crowds(beside))
            each = (time.time() - began) / beside
            report.note("registered", (f"{beside:,}", ""), "", f"{each * 1e3:.1f} ms, {1 / each:,.0f}/s", kept=True)
        rounds, grown = [], [memory()]
        for _ in range(sizes.rounds):
            rounds.append(await bench.round(sizes.events, sizes.waiters))
            grown.append(memory())
        for name, count in (("started", sizes.events), ("told", sizes.waiters)):
            add(report, name, beside, count, [each[name] for each in rounds])
        kept = grown[-1] <= GROWTH * grown[0]
        report.note("memory before and after", ("", ""), f"{grown[0]:,.0f} MB", f"{grown[-1]:,.0f} MB", kept=kept)


async def main(sizes: Sizes) -> int:
    """Print the table."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sysconfig.get_path("scripts")) / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=[
            *("--dynamic-config-value", "history.transferProcessorMaxPollRPS=10000", "--metrics-port", str(port))
        ],
    )
    report = Report(f"events on Temporal, sent by {sizes.senders} processes", "bare")
    pool = ProcessPoolExecutor(sizes.senders, mp_context=get_context("spawn"))
    backend = TemporalBackend(server.client, task_queue=new_id(), functions=[triggered, waiting])
    bare = new_id()
    worker = Worker(
        server.client,
        task_queue=bare,
        workflows=[BareStart, BareCrowd],
        workflow_runner=with_shared_modules(SandboxedWorkflowRunner()),
    )
    async with server, backend, worker:
        with pool:
            await measure(report, Bench(server.client, pool, backend, bare, sizes), sizes)
        failed = await failed_tasks(port)
    report.note("failed tasks", ("", ""), "", f"{failed:,.0f}", kept=failed == 0)
    Console(width=140).print(report.table)
    return 0 if report.kept else 1


def options(arguments: Sequence[str]) -> Sizes:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000, help="how many start something, in a round")
    parser.add_argument("--waiters", type=int, default=2_000, help="how many events runs wait for, in a round")
    parser.add_argument("--registered", type=int, default=20_000, help="how many further waiters there are")
    parser.add_argument("--senders", type=int, default=8, help="how many processes send")
    parser.add_argument("--rounds", type=int, default=3)
    return Sizes(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options(sys.argv[1:]))))
