"""Recorded runs taken through other code, and code that changes under a run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Agent, Context, DefinitionError, Function, InvokeError, NonDeterminismError, function
from durably.core.history import History
from durably.testing import GoldenMissingError, ScriptedModel, change_matrix, replay
from durably.testing.goldens import Golden
from tests.testing import agents

pytestmark = pytest.mark.asyncio


async def record(target: Function[Any, Any], data: Any) -> History:
    async with MemoryBackend([target]) as backend:
        run = await backend.start(target, data)
        with suppress(InvokeError):
            await run.result()
        return await run.history()


@function("greet")
async def greet(ctx: Context[str]) -> str:
    name = await ctx.step.run("upper", str.upper, ctx.input)
    await ctx.step.sleep("rest", 3600)
    both = await ctx.step.gather(
        lambda: ctx.step.run("left", str.lower, name), lambda: ctx.step.run("right", str.title, name)
    )
    return f"hello {both[0]} {both[1]}"


def changed(code: Any) -> Function[Any, Any]:
    return function("greet")(code)


async def test_unchanged_code_gives_the_recorded_result() -> None:
    assert await replay(await record(greet, "ann"), [greet]) == "hello ann Ann"


async def test_an_agent_is_replayed_without_its_model() -> None:
    agent, bank = agents.keyed()
    history = await record(agent, "refund")
    mute = Agent("support", model=ScriptedModel(), instructions="Help.", tools=list(agent.tools.values()))
    bank.paid.clear()
    result = await replay(history, [mute])
    assert result.text == "done"
    assert [message.role for message in result.messages][-1] == "assistant"
    assert bank.paid == []


async def test_a_run_of_another_backend_is_replayed(tmp_path: Path) -> None:
    async with SQLiteBackend(tmp_path / "runs.db", [agents.look_up]) as backend:
        run = await backend.start(agents.look_up, "ann")
        await run.result()
        (await run.history()).save(tmp_path / "run.jsonl")
    assert await replay(History.load(tmp_path / "run.jsonl"), [agents.look_up]) == "ANN"


async def test_a_renamed_step_is_told_with_both_sides() -> None:
    async def code(ctx: Context[str]) -> str:
        return await ctx.step.run("shout", str.upper, ctx.input)

    with pytest.raises(NonDeterminismError, match=r"recorded step 'upper', the code asked for step 'shout'"):
        await replay(await record(greet, "ann"), [changed(code)])


async def test_a_step_left_out_is_told() -> None:
    async def code(ctx: Context[str]) -> str:
        return await ctx.step.run("upper", str.upper, ctx.input)

    with pytest.raises(NonDeterminismError, match=r"recorded sleep 'rest', the code asked for the end"):
        await replay(await record(greet, "ann"), [changed(code)])


async def test_another_input_is_told() -> None:
    async def code(ctx: Context[str]) -> str:
        return await ctx.step.run("upper", str.upper, ctx.input + "!")

    with pytest.raises(NonDeterminismError, match=r'recorded the input "ann", the code asked for the input "ann!"'):
        await replay(await record(greet, "ann"), [changed(code)])


async def test_another_result_is_told() -> None:
    async def code(ctx: Context[str]) -> str:
        return "bye " + (await greet.handler(ctx))

    with pytest.raises(NonDeterminismError, match=r'recorded the result "hello ann Ann".*"bye hello ann Ann"'):
        await replay(await record(greet, "ann"), [changed(code)])


async def test_a_swallowed_refusal_is_still_one() -> None:
    async def code(ctx: Context[str]) -> str:
        try:
            await ctx.step.run("shout", str.upper, ctx.input)
        except Exception:
            return "hello ann Ann"
        return ""

    with pytest.raises(NonDeterminismError, match="shout"):
        await replay(await record(greet, "ann"), [changed(code)])


async def test_a_failed_run_is_replayed_to_its_error() -> None:
    async def fails(ctx: Context[str]) -> str:
        raise ValueError(f"no {ctx.input}")

    failing = function("greet", retries=0)(fails)
    history = await record(failing, "ann")
    assert history.status == "failed"
    assert await replay(history, [failing]) is None

    async def works(ctx: Context[str]) -> str:
        return "fine"

    with pytest.raises(NonDeterminismError, match=r'recorded the error ValueError: no ann, .* for the result "fine"'):
        await replay(history, [changed(works)])


async def test_a_live_run_is_replayed_as_far_as_it_came() -> None:
    history = await record(greet, "ann")
    for length in range(1, len(history)):
        assert await replay(History(history.records[:length]), [greet]) is None


async def test_the_function_must_be_there() -> None:
    with pytest.raises(DefinitionError, match=r"of function 'greet', and functions=\[...\] has look-up"):
        await replay(await record(greet, "ann"), [agents.look_up])


async def test_secrets_are_masked_as_they_were() -> None:
    async with MemoryBackend([greet], secrets=["hunter22"]) as backend:
        run = await backend.start(greet, "hunter22")
        await run.result()
        history = await run.history()
    assert "hunter22" not in history.to_jsonl()
    await replay(history, [greet], secrets=["hunter22"])


async def test_a_golden_run_that_fails_can_be_kept(tmp_path: Path) -> None:
    async def fails(ctx: Context[str]) -> str:
        raise ValueError("no")

    failing = function("fails", retries=0)(fails)
    golden = Golden(tmp_path / "histories", "test_x.test_y", "new")
    assert await golden.check(failing, "ann") is None
    with pytest.raises(GoldenMissingError, match="--history-record=new"):
        await Golden(tmp_path, "test_x.test_z").check(failing, "ann")


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_changed_code_is_noticed_before_any_effect(backend: str) -> None:
    report = await change_matrix(agents.keyed, "refund", backend=backend)
    assert report.ok, report
    assert len(report.detected) > 50


async def test_changes_of_a_function_are_noticed() -> None:
    report = await change_matrix(
        agents.every_kind, "ann", functions=[agents.look_up, agents.watch], events=[agents.ANSWER]
    )
    assert report.ok, report
    kinds = {label.split()[0] for label in report.detected}
    assert kinds == {"rename", "drop", "add", "input"}
