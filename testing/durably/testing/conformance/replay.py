"""C07: what a replay does not do."""

from __future__ import annotations

from typing import Any

from durably.core import Agent, Context, Event, RetryPolicy, StepError, function, tool
from durably.core.history import History
from durably.testing.conformance.subject import Subject, at, heard, nth
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel, call


async def _echo(value: Any) -> Any:
    return value


@clause
async def test_c07_replay_of_a_finished_prefix_does_nothing(subject: Subject) -> None:
    bodies: list[str] = []
    told: list[Any] = []

    async def body(name: str) -> str:
        bodies.append(name)
        return name

    @function("child")
    async def child(ctx: Context[str]) -> str:
        return await ctx.step.run("inner", body, ctx.input)

    @function("listener", triggers=["c07/told"])
    async def listener(ctx: Context[Any]) -> None:
        told.append(ctx.input)

    # Inngest counts the requests that come while the run is only looked at, and no worker has its function, as crashes.
    @function("prefix", crash_limit=18)
    async def prefix(ctx: Context[None]) -> str:
        await ctx.step.run("a", body, "a")
        await ctx.step.invoke("call", child, "b")
        await ctx.step.send_event("tell", Event("c07/told", "c"))
        await ctx.step.sleep("nap", subject.unit)
        return await ctx.step.run("last", body, "d")

    everything = (prefix, child, listener)
    assert await subject.crash(*everything, where=at("before_start", "last"))
    before = await _records(subject, *everything)
    assert await subject.crash(*everything, where=at("before_start", "last"))
    assert await _records(subject, *everything) == before, "a replay writes nothing"
    result, history = await subject.run(*everything)
    async with subject.open(everything):
        await subject.until(lambda: bool(told))
    assert result == "d"
    assert bodies == ["a", "b", "d"]
    assert told == ["c"]
    assert history.to_jsonl().startswith(before)


@clause
async def test_c07_no_provider_is_called_for_an_answer_that_was_given(subject: Subject) -> None:
    @tool
    async def look() -> str:
        """Look."""
        return "seen"

    model = ScriptedModel(call("look"), "done")
    agent = Agent("c07-agent", model=model, instructions="", tools=[look])
    for key in ("think", "tool-look", "think:1"):
        assert await subject.crash(agent, data="go", where=at("after_commit", key))
    result, _ = await subject.run(agent, data="go")
    assert (result.text, len(model.requests)) == ("done", 2)


async def _records(subject: Subject, *functions: Any) -> str:
    # The functions are left out, so that this worker looks at the run and does not go on with it.
    async with subject.open([]) as backend:
        history: History = await (await backend.run(subject.run_id())).history()
        return history.to_jsonl()


@clause
async def test_c07_a_finished_run_is_not_run_again(subject: Subject) -> None:
    bodies: list[str] = []

    async def body() -> None:
        bodies.append("body")

    @function("once")
    async def once(ctx: Context[int]) -> int:
        bodies.append("function")
        await ctx.step.run("a", body)
        return ctx.input

    result, history = await subject.run(once, data=7)
    again, same = await subject.run(once, data=7)
    assert (result, again) == (7, 7), "starting a run id twice attaches to the first"
    assert same == history
    assert bodies.count("body") == 1
    crashes = 0
    while await subject.crash(once, data=9, number=1, where=nth(crashes)):
        crashes += 1
    assert bodies.count("body") <= 1 + crashes


@clause
async def test_c07_log_lines_of_replayed_code_are_not_repeated(subject: Subject) -> None:
    @function("talkative")
    async def talkative(ctx: Context[None]) -> None:
        ctx.logger.warning("c07 begin")
        await ctx.step.run("a", _echo, 1)
        ctx.logger.warning("c07 middle")
        await ctx.step.run("b", _echo, 2)
        ctx.logger.warning("c07 end")

    with heard() as lines:
        assert await subject.crash(talkative, where=at("after_commit", "b"))
        await subject.run(talkative)
    assert [line for line in lines if line.startswith("c07 ")] == ["c07 begin", "c07 middle", "c07 end"]


@clause
async def test_c07_log_lines_of_branches_are_not_repeated(subject: Subject) -> None:
    failures: list[int] = []

    @function("branches", retries=3, retry_policy=RetryPolicy(initial=subject.unit / 4, jitter=0))
    async def branches(ctx: Context[None]) -> str:
        async def branch(name: str) -> None:
            ctx.logger.warning("c07 %s begins", name)
            await ctx.step.run("a", _echo, name)
            ctx.logger.warning("c07 %s goes on", name)
            await ctx.step.run("b", _echo, name)
            ctx.logger.warning("c07 %s ends", name)

        async def outer() -> None:
            await branch("outer")
            await ctx.step.gather(lambda: branch("left"), lambda: branch("right"))

        await ctx.step.gather(outer, lambda: branch("beside"))
        if ctx.attempt == 1:
            failures.append(len(lines))
            raise ConnectionError("behind the gather")
        ctx.logger.warning("c07 behind")
        await ctx.step.run("last", _echo, "last")
        if ctx.attempt == 2:
            failures.append(len(lines))
            raise ConnectionError("at the end")
        return "done"

    with heard() as lines:
        result, _ = await subject.run(branches)
    assert result == "done"
    said = [line for line in lines if line.startswith("c07 ")]
    names = ("outer", "left", "right", "beside")
    # A branch that is at its first step, or at its end, has nothing recorded of that: while others go on, and the code
    # is replayed, nothing tells whether it was there before.
    assert sorted(line for line in said if "goes on" in line) == sorted(f"c07 {name} goes on" for name in names)
    assert {line for line in said if "begins" in line} == {f"c07 {name} begins" for name in names}
    first, second = ([line for line in lines[failure:] if line.startswith("c07 ")] for failure in failures)
    assert [line for line in first if not line.endswith("ends")] == ["c07 behind"], "it replays all of the branches"
    assert second == [], "the run has gone on from the branches"


@clause
async def test_c07_a_caught_failure_is_replayed_without_its_body(subject: Subject) -> None:
    bodies: list[int] = []

    async def body() -> None:
        bodies.append(1)
        raise ValueError("no")

    @function("caught")
    async def caught(ctx: Context[None]) -> str:
        try:
            await ctx.step.run("bad", body, retries=0)
        except StepError as error:
            return await ctx.step.run("good", _echo, error.error_type)
        return "unreachable"

    assert await subject.crash(caught, where=at("before_body", "good"))
    result, _ = await subject.run(caught)
    assert result == "ValueError"
    assert bodies == [1]
