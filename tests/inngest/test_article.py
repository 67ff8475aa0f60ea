"""The example program as a whole on Inngest: tools, three kinds of delegates, sessions, the reply, a second message."""

from __future__ import annotations

import asyncio

import pytest

from durably.backends.inngest import InngestBackend
from durably.core import MemorySessions, RunStatus, assistant, user
from durably.core.errors import Signal
from durably.core.steps import Point
from durably.testing import ScriptedModel
from durably.testing.inngest import InngestEngine
from tests.core.test_article import ANSWER, TEXTS, Channel, HeldUp, example, message, script
from tests.inngest.conftest import OpenInngest


async def _drain(engine: InngestEngine, backend: InngestBackend, channel: Channel, texts: int) -> None:
    """Let time pass until so many texts went out and no run is live."""
    while len(channel.texts) < texts or any(run.live for run in engine.runs.values()):
        await engine.rest()
        if not engine.advance():
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_message_comes_in_and_a_reply_goes_out(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    sessions, channel = MemorySessions(), Channel()
    functions = example.build(ScriptedModel(script("0s")), sessions, now=engine.now)
    async with open_inngest(*functions, resources={"channel": channel}) as backend:
        await backend.send(message("Where is order 7?", "m1"))
        await _drain(engine, backend, channel, 3)
        assert channel.seen == TEXTS
        (run,) = await backend.runs(function="handle-message")
        result = await run.result()
        assert (result.text, result.iterations, result.tool_calls) == (ANSWER, 3, 4)
        assert result.usage.input_tokens == 10 * (3 + 2)
        assert {each.status for each in await backend.runs()} == {RunStatus.COMPLETED}
    assert await sessions.load("ann") == [user("Where is order 7?"), assistant(ANSWER)]
    shown = [
        name for run in engine.runs.values() if run.function == "app-handle-message" for _, name, _, _ in run.trace
    ]
    assert shown[:5] == ["save-incoming", "load-context", "load-history", "think", "tool-get_order"]


@pytest.mark.asyncio
async def test_a_second_message_of_the_session_cancels_the_first_run(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    sessions, channel, model = MemorySessions(), Channel(), HeldUp()
    functions = example.build(model, sessions, now=engine.now)
    async with open_inngest(*functions, resources={"channel": channel}) as backend:
        await backend.send(message("Where is it?", "m1"))
        await model.entered.wait()
        await backend.send(message("I mean order 7.", "m2"))
        model.release.set()
        await _drain(engine, backend, channel, 3)
        statuses = [(each.view.function, each.status.value) for each in await backend.runs()]
    assert statuses.count(("handle-message", "cancelled")) == statuses.count(("handle-message", "completed")) == 1
    assert statuses.count(("expert", "cancelled")) == statuses.count(("expert", "completed")) == 1  # it came along
    assert [text for where, text in channel.seen if where == "ann"] == [ANSWER]


class Kill(Signal):
    """The process is gone."""


class Killer:
    """A probe that kills at the point that is passed after so many others."""

    def __init__(self, number: int) -> None:
        self.left = number + 1
        self.fired = False

    def __call__(self, point: Point) -> None:
        self.left -= 1
        if self.left == 0:
            self.fired = True
            raise Kill


@pytest.mark.asyncio
async def test_a_crash_at_any_point_changes_nothing() -> None:
    number = 0
    while True:
        engine = InngestEngine(seed=number, backoff=1.0)
        sessions, channel, killer = MemorySessions(), Channel(), Killer(number)
        functions = example.build(ScriptedModel(script("0s")), sessions, now=engine.now)

        for attempt in range(2):
            backend = InngestBackend(
                engine.client(),
                functions,
                serve=engine.serve,
                now=engine.now,
                poll=0.001,
                grace=0.5,
                resources={"channel": channel},
            )
            async with backend:
                backend.probe = killer if attempt == 0 else None
                if attempt == 0:
                    await backend.send(message("Where is order 7?", "m1"))
                while not killer.fired or attempt:
                    await engine.rest()
                    if not engine.advance():
                        break
        assert channel.seen == TEXTS, f"killed at point {number}"
        assert await sessions.load("ann") == [user("Where is order 7?"), assistant(ANSWER)]
        assert {run.status for run in engine.runs.values()} == {"COMPLETED"}
        if not killer.fired:
            break
        number += 5
    assert number > 100
