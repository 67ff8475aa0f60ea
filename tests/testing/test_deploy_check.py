"""The deploy check: live runs against the code of now, with the step and the line that no longer fit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durably.backends import SQLiteBackend
from durably.core import Agent, Context, Function, function, tool
from durably.core.history import History
from durably.core.run_view import RunStatus
from durably.testing import ScriptedModel, call, check_deploy
from tests.testing.test_plugin import PLUGIN

pytest_plugins = "pytester"


async def say(text: str) -> str:
    return text


@function("greet")
async def greet(ctx: Context[str]) -> str:
    await ctx.step.run("say", say, ctx.input)
    await ctx.step.wait_for_event("answer", "answered")
    return await ctx.step.run("thank", say, "thanks")


@function("greet")
async def greet_twice(ctx: Context[str]) -> str:
    await ctx.step.run("say", say, ctx.input)
    await ctx.step.run("say-again", say, ctx.input)  # the line that does not fit
    return ctx.input


@function("greet")
async def greet_otherwise_later(ctx: Context[str]) -> str:
    await ctx.step.run("say", say, ctx.input)
    await ctx.step.wait_for_event("answer", "answered")
    return await ctx.step.run("thank-a-lot", say, "thanks a lot")


def desk_that_pays(after_asking: bool) -> Agent:
    @tool(requires_approval=after_asking)
    async def pay(amount: str) -> str:
        return amount

    @tool(requires_approval=True)
    async def ask() -> str:
        return "yes"

    model = ScriptedModel(call("pay", amount="7"), call("ask"), "done")
    return Agent("desk", model=model, instructions="Pay.", tools=[pay, ask])


async def live_runs(path: Path, target: Function[Any, Any], data: str) -> Path:
    """A database with a run that waits."""
    async with SQLiteBackend(path, [target]) as backend:
        run = await backend.start(target, data, run_id="run-1")
        while run.status is not RunStatus.WAITING:
            await asyncio.sleep(0.01)
            await run.refresh()
    return path


@pytest.mark.asyncio
async def test_the_step_and_the_line_that_do_not_fit_are_named(tmp_path: Path) -> None:
    database = await live_runs(tmp_path / "runs.db", greet, "hello")
    assert (await check_deploy([greet], database)).ok
    assert (await check_deploy([greet_otherwise_later], database)).ok  # it has not come that far
    report = await check_deploy([greet_twice], database)
    (fit,) = report.misfits
    assert (fit.run_id, fit.function, fit.step) == ("run-1", "greet", "answer")
    number = (
        Path(__file__)
        .read_text()
        .splitlines()
        .index('    await ctx.step.run("say-again", say, ctx.input)  # the line that does not fit')
    )
    assert fit.line.endswith(f"test_deploy_check.py:{number + 1} in greet_twice")
    assert f"✗ run-1 (greet) does not fit at step 'answer', {fit.line}: " in str(report)
    assert str(report).endswith("0 of 1 runs fit the code")


@pytest.mark.asyncio
async def test_a_tool_of_an_agent_is_the_line_where_no_line_asks(tmp_path: Path) -> None:
    database = await live_runs(tmp_path / "runs.db", desk_that_pays(False), "hello")
    assert (await check_deploy([desk_that_pays(False)], database)).ok
    (fit,) = (await check_deploy([desk_that_pays(True)], database)).misfits
    assert fit.step == "tool-pay"
    assert fit.line.endswith("in pay")


@pytest.mark.asyncio
async def test_ended_runs_are_no_matter(tmp_path: Path) -> None:
    async with SQLiteBackend(tmp_path / "runs.db", [greet]) as backend:
        run = await backend.start(greet, "hello")
        await run.cancel()
        await backend.drain()
    report = await check_deploy([greet_twice], tmp_path / "runs.db")
    assert (report.ok, report.runs) == (True, ())


@pytest.mark.asyncio
async def test_exported_histories_do_as_well(tmp_path: Path) -> None:
    await live_runs(tmp_path / "runs.db", greet, "hello")
    async with SQLiteBackend(tmp_path / "runs.db") as client:
        history = await (await client.run("run-1")).history()
    folder = tmp_path / "exported"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="has no histories"):
        await check_deploy([greet], folder)
    history.save(folder / "one.jsonl")
    for runs in (folder, folder / "one.jsonl", [History.load(folder / "one.jsonl")]):
        assert [each.fits for each in (await check_deploy([greet], runs)).runs] == [True]
        assert [each.step for each in (await check_deploy([greet_twice], runs)).misfits] == ["answer"]
    with pytest.raises(FileNotFoundError, match=r"there is no .*nosuch\.db"):
        await check_deploy([greet], tmp_path / "nosuch.db")


@pytest.mark.asyncio
async def test_a_function_that_is_gone_does_not_fit(tmp_path: Path) -> None:
    @function("ask")
    async def ask(ctx: Context[str]) -> str:
        return ctx.input

    database = await live_runs(tmp_path / "runs.db", greet, "hello")
    (fit,) = (await check_deploy([ask], database)).misfits
    assert "add it; if it was renamed" in fit.problem


PROJECT = """
from durably.core import Context, function

async def say(text: str) -> str:
    return text

@function("greet")
async def greet(ctx: Context[str]) -> None:
    await ctx.step.run("say", say, ctx.input)
    await ctx.step.{second}("answer", {arguments})

def test_live_runs_fit(deploy_check):
    report = deploy_check.run([greet]{runs})
    assert len(report.runs) == 1
"""


@pytest.mark.asyncio
async def test_the_fixture_fails_a_test_whose_code_does_not_fit(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider -p no:asyncio\n")
    database = await live_runs(tmp_path / "runs.db", greet, "hello")
    good = PROJECT.format(second="wait_for_event", arguments="'answered'", runs=f", {str(database)!r}")
    bad = PROJECT.format(second="run", arguments="say, 'no'", runs="")
    pytester.makepyfile(test_good=good, test_bad=bad)
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=1, skipped=1)  # the second one is told of no runs
    result = pytester.runpytest_inprocess(*PLUGIN, f"--durably-runs={database}")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*run-1 (greet) does not fit at step 'answer', test_bad.py:9 in greet: *"])
