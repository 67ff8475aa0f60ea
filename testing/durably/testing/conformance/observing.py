"""C28: what observers are told, and when."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from durably.core import Agent, Context, Event, Observer, RetryPolicy, StepError, function
from durably.core.messages import assistant
from durably.core.model import Delta, ModelRequest, ModelResponse
from durably.core.observer import (
    AttemptFailed,
    Happening,
    RunEnded,
    RunStarted,
    RunWaiting,
    StepBegan,
    StepEnded,
    StreamedDelta,
)
from durably.testing.conformance.subject import Subject, at, heard
from durably.testing.conformance.suite import RefusedError, clause


class Ear(Observer):
    """Keeps what it is told of one run."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.events: list[Happening] = []

    def _keep(self, event: Happening) -> None:
        if event.run_id == self.run_id:
            self.events.append(event)

    def run_started(self, event: RunStarted) -> None:
        self._keep(event)

    def step_began(self, event: StepBegan) -> None:
        self._keep(event)

    def delta(self, event: StreamedDelta) -> None:
        self._keep(event)

    def attempt_failed(self, event: AttemptFailed) -> None:
        self._keep(event)

    def step_ended(self, event: StepEnded) -> None:
        self._keep(event)

    def run_waiting(self, event: RunWaiting) -> None:
        self._keep(event)

    def run_ended(self, event: RunEnded) -> None:
        self._keep(event)

    @property
    def said(self) -> list[str]:
        """Each event as its type, the step and the attempt."""
        return [shown(event) for event in self.events]


def shown(event: Happening) -> str:
    """An event as its type, and where it has them the step and the attempt."""
    attempt = getattr(event, "attempt", None)
    words = (type(event).__name__, getattr(event, "step", None), None if attempt is None else f"#{attempt}")
    return " ".join(filter(None, words))


class Teller:
    """A model that shows its answer in pieces, and fails where it is told to."""

    name = "test:teller"

    def __init__(self, *, fails: int = 0) -> None:
        self._fails = fails

    async def complete(self, request: ModelRequest) -> ModelResponse:
        raise AssertionError("the agent asks for a stream")

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        for word in ("it ", "is ", "done"):
            yield Delta(kind="text", text=word)
            if self._fails and word == "is ":
                self._fails -= 1
                raise ConnectionError("cut off")
        yield ModelResponse(message=assistant("it is done"))


async def _echo(value: Any) -> Any:
    return value


class _Program:
    """A run of every kind of step, one of which fails once."""

    def __init__(self, subject: Subject) -> None:
        self.failures = 1

        async def flaky() -> str:
            if self.failures:
                self.failures -= 1
                raise ConnectionError("once")
            return "ok"

        async def bad() -> None:
            raise ValueError("always")

        @function("c28-child")
        async def child(ctx: Context[None]) -> str:
            return await ctx.step.run("inner", _echo, "child")

        @function("c28-everything", retry_policy=RetryPolicy(initial=subject.unit / 10, jitter=0))
        async def everything(ctx: Context[None]) -> str:
            await ctx.step.run("flaky", flaky)
            await ctx.step.sleep("nap", subject.unit / 10)
            await ctx.step.invoke("call", child)
            await ctx.step.send_event("tell", Event("c28/told"))
            try:
                await ctx.step.run("bad", bad, retries=0)
            except StepError:
                await ctx.step.run("last", _echo, "caught")
            return "done"

        self.functions = (everything, child)


EVERYTHING = [
    "RunStarted",
    "StepBegan flaky #1",
    "AttemptFailed flaky #1",
    "StepBegan flaky #2",
    "StepEnded flaky #2",
    "StepBegan nap #1",
    "RunWaiting nap",
    "StepEnded nap #1",
    "StepBegan call #1",
    "RunWaiting call",
    "StepEnded call #1",
    "StepBegan tell #1",
    "StepEnded tell #1",
    "StepBegan bad #1",
    "StepEnded bad #1",
    "StepBegan last #1",
    "StepEnded last #1",
    "RunEnded",
]


@clause
async def test_c28_each_thing_is_told_once_and_in_order(subject: Subject) -> None:
    ear = Ear(subject.run_id())
    result, history = await subject.run(*_Program(subject).functions, observers=[ear])
    assert result == "done"
    assert ear.said == EVERYTHING
    ended = {event.step: event for event in ear.events if isinstance(event, StepEnded)}
    for record in history.steps():
        event = ended[record.key]
        assert (event.kind, event.status, event.output) == (record.kind, record.status, record.output)
    assert subject.unit / 20 <= ended["nap"].took < 100 * subject.unit, "how long it took, in seconds"
    assert 0 <= ended["bad"].took < 100 * subject.unit
    assert ended["bad"].error is not None
    assert ended["bad"].error["error_type"] == "ValueError"
    (failed,) = (event for event in ear.events if isinstance(event, AttemptFailed))
    assert (failed.error["type"], failed.error["message"]) == ("ConnectionError", "once")
    assert failed.retry_at >= failed.at
    last = ear.events[-1]
    assert isinstance(last, RunEnded)
    assert (last.status, last.output, last.function) == ("completed", '"done"', "c28-everything")


@clause
async def test_c28_a_replay_tells_nothing_again(subject: Subject) -> None:
    ear = Ear(subject.run_id())
    program = _Program(subject)
    assert await subject.crash(*program.functions, where=at("before_start", "last"), observers=[ear])
    assert await subject.crash(*program.functions, where=at("before_start", "last"), observers=[ear])
    await subject.run(*program.functions, observers=[ear])
    # How many attempts of the last step the crashes may have cut off, each engine counts in its own way.
    assert [re.sub(r"(?<=last #)\d+", "1", said) for said in ear.said] == EVERYTHING


@clause
async def test_c28_an_attempt_that_a_crash_cuts_off_is_not_told_as_ended(subject: Subject) -> None:
    ear = Ear(subject.run_id())

    @function("c28-cut-off")
    async def cut_off(ctx: Context[None]) -> str:
        return str(await ctx.step.run("a", _echo, 1))

    assert await subject.crash(cut_off, where=at("after_effect", "a"), observers=[ear])
    assert ear.said == ["RunStarted", "StepBegan a #1"]
    await subject.run(cut_off, observers=[ear])
    assert ear.said[2:] == ["StepBegan a #2", "StepEnded a #2", "RunEnded"]


@clause
async def test_c28_what_is_refused_is_not_told(subject: Subject) -> None:
    if subject.unit < 60:
        raise RefusedError("where time is real, a server tells what it has taken")
    stale_ear, ear = Ear(subject.run_id()), Ear(subject.run_id())
    begun, pause = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        if not begun.is_set():
            begun.set()
            await pause.wait()
        return "done"

    @function("c28-fenced")
    async def fenced(ctx: Context[None]) -> str:
        return await ctx.step.run("work", work)

    async with subject.open([fenced], observers=[stale_ear]) as stale:
        await stale.start(fenced, run_id=subject.run_id())
        await begun.wait()
        await subject.expire(stale)
        async with subject.open([fenced], observers=[ear]) as owner:
            await (await owner.run(subject.run_id())).result()
            pause.set()
    assert stale_ear.said == ["RunStarted", "StepBegan work #1"]
    assert ear.said == ["StepBegan work #2", "StepEnded work #2", "RunEnded"]


@clause
async def test_c28_the_failure_of_a_run_is_told(subject: Subject) -> None:
    ear = Ear(subject.run_id())

    @function("c28-failing", retries=1, retry_policy=RetryPolicy(initial=subject.unit / 10, jitter=0))
    async def failing(ctx: Context[None]) -> None:
        raise ValueError("the token is c28-secret")

    await subject.fail(failing, secrets=["c28-secret"], observers=[ear])
    assert ear.said == ["RunStarted", "AttemptFailed #1", "RunEnded"]
    last = ear.events[-1]
    assert isinstance(last, RunEnded)
    assert last.status == "failed"
    assert (last.error or {})["type"] == "ValueError"
    assert "c28-secret" not in repr(ear.events)


@clause
async def test_c28_an_observer_may_listen_to_failures_alone(subject: Subject) -> None:
    told: list[str] = []

    class Worried(Observer):
        def attempt_failed(self, event: AttemptFailed) -> None:
            told.append(shown(event))

        def run_ended(self, event: RunEnded) -> None:
            told.append(f"{event.function} {event.status}")

    await subject.run(*_Program(subject).functions, observers=[Worried()])
    assert told == ["AttemptFailed flaky #1", "c28-child completed", "c28-everything completed"]


@clause
async def test_c28_an_observer_that_raises_harms_nothing(subject: Subject) -> None:
    class Broken(Ear):
        def _keep(self, event: Happening) -> None:
            raise RuntimeError("c28 broken")

    ear = Ear(subject.run_id())
    with heard() as lines:
        result, _ = await subject.run(*_Program(subject).functions, observers=[Broken(subject.run_id()), ear])
    assert result == "done"
    assert ear.said == EVERYTHING
    assert len([line for line in lines if "c28 broken" in line]) == 1


@clause
async def test_c28_the_pieces_of_an_answer_are_told_as_they_come(subject: Subject) -> None:
    ear = Ear(subject.run_id())
    policy = RetryPolicy(initial=subject.unit / 10, jitter=0)
    teller = Agent("c28-teller", model=Teller(fails=1), instructions="", stream=True, retry_policy=policy)

    assert await subject.crash(teller, data="go", where=at("before_result"), observers=[ear])
    result, _ = await subject.run(teller, data="go", observers=[ear])
    assert result.text == "it is done"
    pieces = [event for event in ear.events if isinstance(event, StreamedDelta)]
    told = [(piece.step, piece.attempt, piece.offset, piece.delta.text) for piece in pieces]
    first = [("think", 1, 0, "it "), ("think", 1, 1, "is ")]
    assert told == [*first, ("think", 2, 0, "it "), ("think", 2, 1, "is "), ("think", 2, 2, "done")]
    assert {piece.function for piece in pieces} == {"c28-teller"}
    around = ("StepBegan think #1", "StreamedDelta think #1", "AttemptFailed think #1")
    places = [ear.said.index(what) for what in around]
    assert places == sorted(places)
