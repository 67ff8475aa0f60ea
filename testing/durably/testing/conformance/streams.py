"""C29: the stream of a run, in any process."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core import Agent, Backend, Context, RetryPolicy, function
from durably.core.deltas import DeltaStore, MemoryDeltas
from durably.core.observer import RunEnded, RunStarted, StepEnded, StreamedDelta
from durably.core.stream import StreamItem
from durably.testing.conformance.observing import Teller, shown
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


async def _read(backend: Backend, subject: Subject, from_offset: int = 0) -> list[StreamItem]:
    run = await backend.run(subject.run_id())
    return [item async for item in run.stream(from_offset)]


def _store(subject: Subject) -> DeltaStore | None:
    """Where pieces are kept when backends come and go: where they keep them themselves, or else in memory."""
    return None if subject.keeps_deltas else MemoryDeltas()


def _teller(subject: Subject, fails: int = 0) -> Agent:
    policy = RetryPolicy(initial=subject.unit / 10, jitter=0)
    return Agent("c29-teller", model=Teller(fails=fails), instructions="", stream=True, retry_policy=policy)


@clause
async def test_c29_a_stream_says_what_the_records_say(subject: Subject) -> None:
    @function("c29-child")
    async def child(ctx: Context[None]) -> str:
        return "child"

    @function("c29-steps")
    async def steps(ctx: Context[None]) -> str:
        await ctx.step.gather(
            lambda: ctx.step.run("left", _echo, 1),
            lambda: ctx.step.run("right", _echo, 2),
        )
        await ctx.step.sleep("nap", subject.unit / 10)
        await ctx.step.invoke("call", child)
        return "done"

    async with subject.open([steps, child]) as backend:
        run = await backend.start(steps, run_id=subject.run_id())
        live = [item async for item in run.stream()]
        history = await run.history()
    async with subject.open([]) as backend:
        assert await _read(backend, subject) == live, "the same in a process that executes nothing, and afterwards"
    said = [shown(item.event) for item in live]
    assert (said[0], said[-1]) == ("RunStarted", "RunEnded")
    for key in ("gather[0]/left", "gather[1]/right", "nap", "call"):
        assert said.count(f"StepBegan {key} #1") == said.count(f"StepEnded {key} #1") == 1
        assert said.index(f"StepBegan {key} #1") < said.index(f"StepEnded {key} #1")
    outputs = {item.event.step: item.event.output for item in live if isinstance(item.event, StepEnded)}
    assert outputs == {record.key: record.output for record in history.steps()}


@clause
async def test_c29_a_stream_goes_on_from_any_offset(subject: Subject) -> None:
    store, teller = _store(subject), _teller(subject, fails=1)
    async with subject.open([teller], deltas=store) as backend:
        run = await backend.start(teller, "go", run_id=subject.run_id())
        live = [item async for item in run.stream()]
        offsets = [item.offset for item in live]
        assert offsets == sorted(set(offsets)), "each has an offset of its own, higher than those before"
        assert offsets[-1] < 2**53, "which a program in JavaScript can hold"
        again = await _read(backend, subject)
        assert [(item.offset, item.event) for item in again] == [(item.offset, item.event) for item in live]
        for number, item in enumerate(again):
            assert await _read(backend, subject, item.offset) == again[number:]
            assert await _read(backend, subject, item.offset + 1) == again[number + 1 :]
    texts = [each.event.delta.text for each in live if isinstance(each.event, StreamedDelta)]
    assert texts == ["it ", "is ", "it ", "is ", "done"], "no piece is skipped"


@clause
async def test_c29_pieces_of_an_abandoned_attempt_are_marked(subject: Subject) -> None:
    store, teller = _store(subject), _teller(subject, fails=1)
    assert await subject.crash(teller, data="go", where=at("after_effect", "think"), deltas=store)
    async with subject.open([teller], deltas=store) as backend:
        run = await backend.start(teller, "go", run_id=subject.run_id())
        await run.result()
        items = await _read(backend, subject)
    pieces = [(item.event, item.abandoned) for item in items if isinstance(item.event, StreamedDelta)]
    attempts = {event.attempt for event, _ in pieces}
    assert len(attempts) == 3, "one failed, one was cut off by the crash, and one ended"
    assert all(abandoned == (event.attempt < max(attempts)) for event, abandoned in pieces)
    kept = [event.delta.text for event, abandoned in pieces if not abandoned]
    assert kept == ["it ", "is ", "done"]
    said = [shown(item.event) for item in items]
    for attempt in attempts:
        began = said.index(f"StepBegan think #{attempt}")
        assert said[began + 1] == f"StreamedDelta think #{attempt}", "each attempt begins before its pieces"
    assert said.index(f"StepEnded think #{max(attempts)}") > said.index(f"StreamedDelta think #{max(attempts)}")


@clause
async def test_c29_a_stream_can_be_read_while_the_run_goes_on(subject: Subject) -> None:
    go_on = asyncio.Event()

    async def wait() -> str:
        await go_on.wait()
        return "went on"

    @function("c29-live")
    async def live(ctx: Context[None]) -> str:
        await ctx.step.run("first", _echo, 1)
        return await ctx.step.run("held", wait)

    async with subject.open([live]) as backend:
        run = await backend.start(live, run_id=subject.run_id())
        seen: list[StreamItem] = []
        async for item in run.stream():
            seen.append(item)
            if isinstance(item.event, StepEnded) and item.event.step == "first":
                break  # a reader that disconnects
        assert isinstance(seen[0].event, RunStarted)
        go_on.set()
        rest = await _read(backend, subject, seen[-1].offset + 1)
        assert isinstance(rest[-1].event, RunEnded)
        assert await _read(backend, subject) == [*seen, *rest]
