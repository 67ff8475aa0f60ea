"""Runs are found by what is known of them, and in pages that stay where they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.core import Context, Function, FunctionRef, RunNotFoundError, RunStatus, function
from durably.core.errors import AmbiguousRunIdError, RunExistsError
from durably.core.standing import open_records


@function("patient")
async def patient(ctx: Context[dict[str, str]]) -> None:
    await ctx.step.wait_for_event("go", "go")


@function("caller")
async def caller(ctx: Context[dict[str, str]]) -> None:
    await ctx.step.invoke("call", patient, ctx.input)


@function("trying", retries=5)
async def trying(ctx: Context[None]) -> None:
    await ctx.step.run("fail", _fail)


async def _fail() -> None:
    raise ConnectionError("no route")


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayBackend:
    functions: list[Function[Any, Any]] = [patient, caller, trying]
    return MemoryBackend(functions) if request.param == "memory" else SQLiteBackend(tmp_path / "runs.db", functions)


async def until_held(backend: ReplayBackend, count: int) -> None:
    """Let the runs come to where they stay."""
    while len(await backend.runs(status=[RunStatus.WAITING, RunStatus.RETRYING])) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_where_runs_stand_and_what_they_are_found_by(backend: ReplayBackend) -> None:
    async with backend:
        await backend.start(caller, {"session_key": "s"}, run_id="caller-1", tags=["tenant:7", "eu"])
        await backend.start(trying, run_id="trying-1", tags=["tenant:7"])
        await backend.start(FunctionRef("elsewhere"), run_id="away-1")
        await until_held(backend, 4)
        (child,) = await backend.runs(function=patient)
        above = await backend.run("caller-1")
        assert [(each.kind, each.run_id) for each in above.view.waiting_for] == [("child", child.id)]
        assert [(each.kind, each.name, each.step) for each in child.view.waiting_for] == [("event", "go", "go")]
        assert [(each.kind, each.name) for each in (await backend.run("away")).view.waiting_for] == [
            ("worker", "elsewhere")
        ]
        assert [run.id for run in await backend.runs(status=RunStatus.RETRYING)] == ["trying-1"]
        assert {run.id for run in await backend.runs(root="caller-1")} == {"caller-1", child.id}
        assert {run.id for run in await backend.runs(session_key="s")} == {"caller-1", child.id}
        assert [run.id for run in await backend.runs(tags=["tenant:7"])] == ["trying-1", "caller-1"]
        assert [run.id for run in await backend.runs(tags=["tenant:7", "eu"])] == ["caller-1"]
        assert await backend.count_runs() == {RunStatus.WAITING: 3, RunStatus.RETRYING: 1}
        await above.cancel()
        assert await backend.count_runs(ended_after=0) == {RunStatus.CANCELLED: 2}
        for run in await backend.runs(status=[RunStatus.WAITING, RunStatus.RETRYING]):
            assert backend.journal.open_records(run.id) == open_records((await run.history()).records)


@pytest.mark.asyncio
async def test_an_id_stands_for_one_run_and_one_input(backend: ReplayBackend) -> None:
    async with backend:
        await backend.start(patient, {"a": "1"}, run_id="order-7")
        await backend.start(patient, {"a": "2"}, run_id="order-8")
        assert (await backend.start(patient, {"a": "1"}, run_id="order-7")).id == "order-7"
        with pytest.raises(RunExistsError, match="started with another input"):
            await backend.start(patient, {"a": "2"}, run_id="order-7")
        with pytest.raises(RunExistsError, match="belongs to function 'patient', not 'trying'"):
            await backend.start(trying, run_id="order-7")
        assert (await backend.run("order-7")).id == "order-7"
        with pytest.raises(AmbiguousRunIdError, match="'order-8', 'order-7'"):
            await backend.run("order-")
        with pytest.raises(RunNotFoundError):
            await backend.run("order-9")


Step = st.sampled_from(["older", "newer", "add"])


@given(
    first=st.integers(0, 12),
    limit=st.integers(1, 5),
    steps=st.lists(Step, max_size=25),
    tag=st.sampled_from([None, "odd"]),
    kind=st.sampled_from(["memory", "sqlite"]),
)
@settings(max_examples=20, deadline=None)
@pytest.mark.asyncio
async def test_pages_show_no_run_twice_and_miss_none(
    first: int, limit: int, steps: list[str], tag: str | None, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("runs") / "runs.db"
    tags = [tag] if tag else []
    async with MemoryBackend() if kind == "memory" else SQLiteBackend(path) as backend:
        made: list[str] = []

        async def add() -> None:
            number = len(made)
            own = ["odd"] if number % 2 else []
            await backend.start(FunctionRef("any"), run_id=f"r{number}", tags=own)
            made.append(f"r{number}")

        def fitting() -> list[str]:
            return [each for each in reversed(made) if not tag or int(each[1:]) % 2]

        for _ in range(first):
            await add()
        page = await backend.runs(limit=limit, tags=tags)
        assert [run.id for run in page] == fitting()[:limit]
        for step in steps:
            ids = [run.id for run in page]
            if step == "add":
                await add()
            elif step == "older" and page.next:
                at = fitting().index(ids[-1]) + 1
                page = await backend.runs(limit=limit, after=page.next, tags=tags)
                assert [run.id for run in page] == fitting()[at : at + limit]
            elif step == "newer" and page.previous:
                at = fitting().index(ids[0])
                page = await backend.runs(limit=limit, before=page.previous, tags=tags)
                assert [run.id for run in page] == fitting()[max(0, at - limit) : at]


@pytest.mark.asyncio
async def test_what_is_no_filter_is_refused(backend: ReplayBackend) -> None:
    async with backend:
        with pytest.raises(ValueError, match="is no cursor"):
            await backend.runs(after="elsewhere")
        with pytest.raises(ValueError, match="give one of them"):
            await backend.runs(after="a", before="b")
        with pytest.raises(ValueError, match="1 or more"):
            await backend.runs(limit=0)
        with pytest.raises(TypeError, match="tags are a list"):
            await backend.runs(tags="tenant:7")
        with pytest.raises(ValueError, match="fits no run"):
            await backend.count_runs(status=[])
