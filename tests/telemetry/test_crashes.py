"""A crash anywhere, or a replay, changes neither the number of spans nor their ids nor the tokens they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from durably.core import AgentResult, Context, function
from durably.core.history import History
from durably.core.steps import Point
from durably.testing.conformance import MemorySubject, Subject
from durably.testing.conformance.subject import at, nth
from examples.refund_desk import desk
from tests.core.traced_runs import QUESTION, functions
from tests.telemetry.collected import Collected, attributes, derived, events, ids
from tests.testing.subjects import SQLiteSubject

pytestmark = pytest.mark.asyncio

MakeSubject = Callable[[Path], Subject]
ENGINES: dict[str, MakeSubject] = {"memory": lambda path: MemorySubject(), "sqlite": SQLiteSubject}


async def _desk(subject: Subject, crash: int | None = None) -> tuple[Collected, History, Point | None]:
    """The desk's run, crashed once; each life is a worker of its own, with an observer that knows nothing."""
    subject.token = "telemetry"  # the same ids every time
    collected, point = Collected(), None
    if crash is not None:
        point = await subject.crash(*functions(), where=nth(crash), data=QUESTION, observers=[collected.observer(desk)])
    async with subject.open(functions(), observers=[collected.observer(desk)]) as backend:
        run = await backend.start(desk, QUESTION, run_id=subject.run_id())
        await run.result()
        for other in await backend.runs():  # the delegate, and who said yes
            await other.result()
        return collected, await run.history(), point


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.timeout(300)
async def test_a_crash_anywhere_leaves_the_same_spans_and_tokens(engine: str, tmp_path: Path) -> None:
    make = ENGINES[engine]
    whole, records, _ = await _desk(_fresh(make, tmp_path, "whole"))
    outline, tokens = whole.outline(), whole.tokens
    usage = AgentResult.model_validate(records[-1].value).usage  # the delegate's with it
    assert tokens == usage.input_tokens + usage.output_tokens
    assert set(outline.values()) == {1}
    step = 1 if engine == "memory" else 7
    for number in range(0, 1000, step):
        collected, history, point = await _desk(_fresh(make, tmp_path, str(number)), number)
        if point is None:
            assert number > 80
            break
        assert collected.outline() == outline, point
        assert collected.tokens == tokens, point
        _check_attempts(collected, history)


def _fresh(make: MakeSubject, path: Path, name: str) -> Subject:
    (path / name).mkdir()
    return make(path / name)


def _check_attempts(collected: Collected, history: History) -> None:
    """Each step has one event for each attempt before the one that ended it."""
    said = {ids(span)[:2]: span for span in collected.spans}
    for record in history.steps():
        assert len(events(said[derived(record.run_id, record.key)])) == record.attempt - 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_attempt_that_a_crash_cuts_off_is_one_event(engine: str, tmp_path: Path) -> None:
    collected = Collected()

    @function("cut-off")
    async def cut_off(ctx: Context[None]) -> None:
        await ctx.step.run("a", str, "")
        await ctx.step.run("b", str, "")

    subject = ENGINES[engine](tmp_path)
    assert await subject.crash(cut_off, where=at("after_effect", "b"), observers=[collected.observer()])
    await subject.run(cut_off, observers=[collected.observer()])
    assert sorted(span.name for span in collected.spans) == ["run cut-off", "step a", "step b"]
    assert events(collected.span("step a")) == events(collected.span("run cut-off")) == []
    (lost,) = collected.span("step b").events
    assert (lost.name, dict(lost.attributes or {})) == ("durably.attempt.lost", {"durably.attempt": 1})
    assert attributes(collected.span("step b"))["durably.step.attempts"] == 2
