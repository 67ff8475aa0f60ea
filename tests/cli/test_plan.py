"""A fleet is planned from a recorded run: the counts are those of its records, and the arithmetic is shown."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.backends import MemoryBackend
from durably.cli.fleet_plan import ENGINES, RunCost, cost_of, plan
from durably.cli.plan import with_children
from durably.core import Context, Event, function
from tests.cli.conftest import Durably


@function("child")
async def child(ctx: Context[int]) -> int:
    return await ctx.step.run("double", (2).__mul__, ctx.input, output_type=int)


tries: list[int] = []


def fails_once() -> None:
    tries.append(1)
    if len(tries) == 1:
        raise ConnectionError


@function("parent")
async def parent(ctx: Context[None]) -> int:
    step = ctx.step
    await step.run("flaky", fails_once)
    await step.sleep("nap", 60)
    await step.send_event("tell", Event("told"))
    return await step.invoke("child", child, 1) + await step.invoke("child", child, 2)


def test_a_run_costs_what_its_records_say_with_the_runs_it_waited_for() -> None:
    async def recorded() -> RunCost:
        async with MemoryBackend([parent, child]) as backend:
            run = await backend.start(parent)
            await run.result()
            return cost_of(await with_children(backend, await run.history()))

    tries.clear()
    cost = asyncio.run(recorded())
    assert (cost.runs, cost.steps, cost.invokes, cost.sleeps, cost.events, cost.retries) == (3, 7, 2, 1, 1, 1)
    assert (cost.inngest_steps, cost.largest) == (13, 11)
    assert cost.record_bytes > 1000


costs = st.builds(
    RunCost,
    runs=st.integers(1, 5),
    steps=st.integers(0, 500),
    record_bytes=st.integers(0, 10**6),
    body_seconds=st.floats(0, 1000),
)


@given(cost=costs, engine=st.sampled_from(list(ENGINES)), per_day=st.floats(0, 1e7), more=st.floats(1, 100))
def test_more_runs_never_need_less(cost: RunCost, engine: str, per_day: float, more: float) -> None:
    few, many = plan(engine, cost, per_day), plan(engine, cost, per_day * more)
    assert [each.what for each in few] == [each.what for each in many]
    assert all(before.amount <= after.amount for before, after in zip(few, many, strict=True))
    workers = next(each.amount for each in many if each.what == "workers")
    rate = next(each.amount for each in many if each.what == "steps a second")
    assert workers >= 2
    assert workers * ENGINES[engine].worker_steps >= rate * (1 - 1e-9)


def test_the_arithmetic_by_hand() -> None:
    cost = RunCost(runs=1, steps=40, record_bytes=30_000, body_seconds=60.0)
    needs = {each.what: each for each in plan("sqlite", cost, 100_000)}
    rate = 100_000 * 42 / 86_400 * 4
    assert needs["steps a second"].amount == pytest.approx(rate)
    assert needs["bodies at a time"].amount == pytest.approx(100_000 / 86_400 * 4 * 60)
    assert needs["workers"].amount == max(2, math.ceil(100_000 / 86_400 * 4 * 60 / 100))
    assert needs["databases"].amount == 1
    assert needs["GB a day"].amount == pytest.approx(100_000 * (30_000 * 1.4 + 40 * 40) / 1e9)
    assert "/ 86,400 x 4" in needs["steps a second"].because


@pytest.mark.usefixtures("database")
def test_the_command_plans_for_a_recorded_run(durably: Durably, tmp_path: Path) -> None:
    here = ("--backend", "sqlite:///runs.db")
    done = durably("plan", "refund-1042", *here, "--runs-per-day", "1000000", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == set(ENGINES)
    shown = durably("plan", "refund-1042", *here, "--runs-per-day", "1000000", "--on", "temporal")
    assert "actions a day" in shown.stdout
    assert "/ 86,400 x 4" in shown.stdout
    assert "is none of" in durably("plan", "echo-0", *here, "--runs-per-day", "1", "--on", "kafka").stderr
