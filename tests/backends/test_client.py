"""A backend without functions is a client: it starts, sends and looks on, and leaves the work to workers."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from durably.backends import MemoryBackend, MemoryJournal, SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import (
    Agent,
    Context,
    DefinitionError,
    Event,
    FunctionRef,
    Retention,
    RunStatus,
    Singleton,
    function,
    tool,
)
from durably.core.errors import FunctionNotFoundError
from durably.core.retention import EVENT_MEMORY
from durably.testing.models.scripted import ScriptedModel, call
from tests.backends.client_child import count

pytestmark = pytest.mark.asyncio


@function("half", triggers=["halved"])
async def half(ctx: Context[int]) -> float:
    return ctx.input / 2


@function("order", triggers=["paid"])
async def order(ctx: Context[dict[str, int]]) -> int:
    return ctx.input["number"]


@function("audit", triggers=["paid", "refunded"])
async def audit(ctx: Context[dict[str, int]]) -> int:
    return -ctx.input["number"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@contextmanager
def worker_process(path: Path) -> Iterator[None]:
    process = Popen([sys.executable, "-m", "tests.backends.client_child", str(path)])
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


async def outputs(backend: SQLiteBackend | MemoryBackend, name: str, number: int) -> list[str]:
    """What so many runs of a function returned, once there are so many."""
    while len(found := await backend.runs(function=name)) < number:  # noqa: ASYNC110  # another process makes them
        await asyncio.sleep(0.01)
    return sorted([(await run.ended()).view.output or "" for run in found])


# -- what a client does, and does not


async def test_a_client_takes_no_run_no_lease_and_writes_nothing_by_itself(path: Path) -> None:
    async with SQLiteBackend(path, retention=Retention(count=1)) as client, SQLiteBackend(path) as other:
        assert await client.workers() == []
        (before,) = other.journal.file.run("PRAGMA data_version").fetchone()
        await asyncio.sleep(0.5)  # two looks and more
        assert other.journal.file.run("PRAGMA data_version").fetchone() == (before,)
        run = await client.start(half, 3)
        assert [(each.kind, each.name) for each in run.view.waiting_for] == [("worker", "half")]
        assert client.live_runs == []
    async with SQLiteBackend(path) as client:
        assert client.journal.file.run("SELECT count(*) FROM workers").fetchone() == (0,)
        assert client.journal.get(run.id).owner is None  # type: ignore[union-attr]


async def test_a_client_gets_typed_results(path: Path) -> None:
    clerk = Agent("clerk", model=ScriptedModel("hello"), instructions="")
    async with SQLiteBackend(path) as client, SQLiteBackend(path, [half, clerk]):
        assert await client.invoke(half, 3) == 1.5
        same: FunctionRef[int, float] = FunctionRef("half", output_type=float)
        assert await client.invoke(same, 5) == 2.5
        result = await client.invoke(clerk, "hi")
        assert (result.text, len(result.messages)) == ("hello", 2)
        assert [record.status for record in (await (await client.start(half, 1)).history())][:1] == ["started"]


async def test_a_client_goes_by_the_rules_that_workers_registered(path: Path) -> None:
    @function("one", singleton=Singleton(key="user", mode="skip"))
    async def served(ctx: Context[dict[str, str]]) -> None:
        await ctx.step.wait_for_event("go", "go")

    @function("one")
    async def known(ctx: Context[dict[str, str]]) -> None: ...

    async with SQLiteBackend(path) as client, SQLiteBackend(path, [served]):
        first = await client.start(known, {"user": "u"})
        second = await client.start(known, {"user": "u"})
        assert second.status is RunStatus.SKIPPED
        broken = await client.start(known, {"usr": "u"})
        assert (await broken.refresh()).status is RunStatus.FAILED
        while [each.kind for each in (await first.refresh()).view.waiting_for] != ["event"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a worker takes it up
        await client.send(Event("go"))
        assert (await first.ended()).status is RunStatus.COMPLETED


async def test_a_client_cancels_answers_and_streams(path: Path) -> None:
    @tool(requires_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    clerk = Agent("clerk", model=ScriptedModel(call("pay", amount=3), "done"), instructions="", tools=[pay])

    @function("patient")
    async def patient(ctx: Context[None]) -> None:
        await ctx.step.wait_for_event("never", "never")

    async with SQLiteBackend(path) as client, SQLiteBackend(path, [clerk, patient]):
        run = await client.start(clerk, "pay")
        while not (pending := await client.approvals(run=run.id)):  # noqa: ASYNC110  # a worker asks
            await asyncio.sleep(0.01)
        await client.approve(pending[0], by="Zoe")
        kinds = [type(item.event).__name__ async for item in run.stream()]
        assert kinds[-1] == "RunEnded"
        assert (await run.result()).text == "done"
        waiting = await client.start(patient)
        await waiting.cancel()
        assert (await waiting.ended()).status is RunStatus.CANCELLED


async def test_a_worker_still_refuses_code_that_it_does_not_serve(path: Path) -> None:
    async with SQLiteBackend(path, [half]) as worker, MemoryBackend() as alone:
        for backend in (worker, alone):
            with pytest.raises(DefinitionError, match="is not served by this backend"):
                await backend.start(order, {"number": 1})


# -- ids that nobody serves


async def test_an_id_that_nobody_registered_is_refused_with_what_is_like_it(path: Path) -> None:
    async with SQLiteBackend(path, [half]), SQLiteBackend(path) as client, MemoryBackend([half]) as memory:
        for backend in (client, memory):
            with pytest.raises(FunctionNotFoundError, match=r"'haf'.*did you mean 'half'\?") as caught:
                await backend.start("haf", 3)
            assert caught.value.near == ["half"]
            with pytest.raises(FunctionNotFoundError):
                await backend.invoke("nosuch")
            assert await backend.runs() == []
            assert await backend.invoke("half", 3) == 1.5


async def test_a_run_of_another_programs_function_is_kept_visible_and_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @function("caller")
    async def caller(ctx: Context[int]) -> float:
        return await ctx.step.invoke("call", FunctionRef("half", output_type=float), ctx.input)

    async with SQLiteBackend(path, [caller]) as worker:
        with caplog.at_level(logging.WARNING, "durably"):
            runs = [await worker.start(caller, number) for number in (1, 2)]
            while len(children := await worker.runs(function="half")) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [record.message for record in caplog.records if "'half'" in record.message] == [
            f"no worker has ever served 'half': run {children[1].id}, and others of it, wait for one"
        ]
        assert [each.kind for each in children[0].view.waiting_for] == ["worker"]
        async with SQLiteBackend(path, [half]):
            assert [await run.result() for run in runs] == [0.5, 1.0]


# -- events before the function


@pytest.mark.parametrize("first", ["client", "worker"])
async def test_events_start_the_function_whoever_comes_first(path: Path, first: str) -> None:
    events = [Event("counted", number) for number in range(3)]
    async with SQLiteBackend(path) as client:
        if first == "client":
            await client.send(*events)
        with worker_process(path):
            if first == "worker":
                while not client.known_functions():  # noqa: ASYNC110  # another process registers
                    await asyncio.sleep(0.01)
                await client.send(*events)
            assert await outputs(client, "count", 3) == ["0", "2", "4"]
        with worker_process(path):  # and nothing again when it comes back
            assert await client.invoke(count, 5) == 10
            assert len(await client.runs()) == 4


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_only_the_first_function_of_a_name_takes_up_what_came_before(kind: str, path: Path) -> None:
    journal = MemoryJournal()

    def opened(*functions: object) -> MemoryBackend | SQLiteBackend:
        chosen: list[object] = list(functions)
        if kind == "memory":
            return MemoryBackend(chosen, journal=journal)  # type: ignore[arg-type]
        return SQLiteBackend(path, chosen)  # type: ignore[arg-type]

    async with opened() as client:
        await client.send(Event("paid", {"number": 1}))
    async with opened(order) as worker:
        assert await outputs(worker, "order", 1) == ["1"]
    async with opened(order) as worker:
        await worker.send(Event("paid", {"number": 2}), Event("refunded", {"number": 3}))
        assert await outputs(worker, "order", 2) == ["1", "2"]
    async with opened(audit) as worker:  # payments had a function when they came, the refund had none
        assert await outputs(worker, "audit", 1) == ["-3"]
        await worker.send(Event("paid", {"number": 4}))
        assert await outputs(worker, "audit", 2) == ["-3", "-4"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_trigger_that_was_away_takes_up_what_came_meanwhile_and_nothing_twice(kind: str, path: Path) -> None:
    """Also where the runs of the events before are forgotten, which would say that those were done."""

    @function("order")
    async def deaf(ctx: Context[dict[str, int]]) -> int:
        return 0

    journal = MemoryJournal()
    clock = VirtualClock()

    def opened(*functions: object) -> MemoryBackend | SQLiteBackend:
        chosen: list[object] = list(functions)
        if kind == "memory":
            return MemoryBackend(chosen, journal=journal, clock=clock)  # type: ignore[arg-type]
        return SQLiteBackend(path, chosen, clock=clock)  # type: ignore[arg-type]

    async with opened(order) as worker:
        await worker.send(Event("paid", {"number": 1}))
        await outputs(worker, "order", 1)
        clock.shift(3600)
        assert (await worker.prune(keep=0, older_than="1s")).runs == 1
    async with opened(deaf) as worker:
        await worker.send(Event("paid", {"number": 2}))
        assert await worker.runs() == []
    for _ in range(2):
        async with opened(order) as worker:
            assert await outputs(worker, "order", 1) == ["2"]


async def test_a_new_trigger_takes_up_no_years_of_history(caplog: pytest.LogCaptureFixture) -> None:
    journal, clock = MemoryJournal(), VirtualClock()
    async with MemoryBackend([half], journal=journal, clock=clock) as worker:
        await worker.send(Event("paid", {"number": 1}))
        clock.shift(EVENT_MEMORY)
        await worker.send(Event("paid", {"number": 2}))
        clock.shift(60)
    async with MemoryBackend([half, order], journal=journal, clock=clock) as worker:
        assert await outputs(worker, "order", 1) == ["2"]
    assert "1 events that came before their first function are too old" in caplog.text
