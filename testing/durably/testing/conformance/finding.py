"""C32: a run is what was asked for, can be found, and says where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from durably.core import Context, Event, FunctionRef, Run, RunNotFoundError, RunStatus, current_step, function
from durably.core.errors import AmbiguousRunIdError, RetryAfterError, RunExistsError
from durably.core.run_view import WaitingFor
from durably.testing.conformance.subject import Subject
from durably.testing.conformance.suite import clause


@function("c32-done")
async def _done(ctx: Context[Any]) -> Any:
    return ctx.input


@function("c32-patient")
async def _patient(ctx: Context[Any]) -> str:
    event = await ctx.step.wait_for_event("answer", "c32/answered", match={"data.run": ctx.run_id})
    return "" if event is None else str(event.data["text"])


@asynccontextmanager
async def _still(subject: Subject) -> AsyncIterator[None]:
    with subject.still():
        yield


async def _waits(subject: Subject, run: Run[Any], kind: str) -> WaitingFor:
    """What a run waits for, once it does. The test's patience ends it."""
    while not (found := [each for each in (await run.refresh()).view.waiting_for if each.kind == kind]):  # noqa: ASYNC110
        await asyncio.sleep(min(subject.unit / 100, 0.01))
    return found[0]


@clause
async def test_c32_a_run_is_found_by_how_its_id_begins_if_no_other_begins_so(subject: Subject) -> None:
    one, two = (f"{subject.run_id()}-{end}" for end in ("ab", "ac"))
    async with subject.open([_done]) as backend:
        for number, run_id in enumerate((one, two, f"{one}-longer")):
            await (await backend.start(_done, number, run_id=run_id)).result()
        assert (await backend.run(one)).id == one, "a whole id stands for its run, though another begins so"
        assert (await backend.run(two[:-1] + "c")).id == two
        assert (await backend.run(f"{one}-l")).id == f"{one}-longer"
        try:
            await backend.run(two[:-1])
        except AmbiguousRunIdError as error:
            assert {one, two} <= {*error.run_ids, one}
        else:
            raise AssertionError("one of several runs was chosen")
        try:
            await backend.run(f"{two}-none")
        except RunNotFoundError as error:
            assert error.run_id == f"{two}-none"
        else:
            raise AssertionError("a run was found that there is not")


@clause
async def test_c32_an_id_stands_for_one_function_and_one_input(subject: Subject) -> None:
    async with subject.open([_done, _patient]) as backend:
        run = await backend.start(_done, {"a": 1}, run_id=subject.run_id())
        assert await run.result() == {"a": 1}
        assert await (await backend.start(_done, {"a": 1}, run_id=run.id)).result() == {"a": 1}
        others: list[tuple[FunctionRef[Any, Any], Any]] = [(_done, {"a": True}), (_done, {}), (_patient, {"a": 1})]
        for other, data in others:
            try:
                await backend.start(other, data, run_id=run.id)
            except RunExistsError as error:
                assert (error.run_id, error.function, error.asked) == (run.id, _done.id, other.id)
            else:
                raise AssertionError(f"{data} of {other.id} was taken for the run that is there")


@clause
async def test_c32_a_run_that_waits_says_for_what(subject: Subject) -> None:
    async with subject.open([_patient]) as backend, _still(subject):
        run = await backend.start(_patient, run_id=subject.run_id())
        wait = await _waits(subject, run, "event")
        assert run.status is RunStatus.WAITING
        assert (wait.name, wait.step) == ("c32/answered", "answer")
        assert run.view.created_at <= wait.since + 1
        await backend.send(Event("c32/answered", {"run": run.id, "text": "yes"}))
        assert await run.result() == "yes"
        assert (run.view.status.final, run.view.waiting_for) == (True, ())


@clause
async def test_c32_a_run_says_that_it_tries_again(subject: Subject) -> None:
    @function("c32-trying")
    async def trying(ctx: Context[Any]) -> int:
        return await ctx.step.run("try", _try, subject.unit)

    async with subject.open([trying]) as backend, _still(subject):
        run: Run[int] = await backend.start(trying, run_id=subject.run_id())
        while (await run.refresh()).status is not RunStatus.RETRYING:
            assert not run.status.final, "it came to its end and never said that it tried again"
            await asyncio.sleep(min(subject.unit / 100, 0.01))
    async with subject.open([trying]) as backend:
        assert await (await backend.run(run.id)).result() == 2


async def _try(delay: float) -> int:
    attempt = current_step().attempt
    if attempt == 1:
        raise RetryAfterError("not yet", delay=delay)
    return attempt


@clause
async def test_c32_a_run_that_nobody_serves_is_kept_and_says_so(subject: Subject) -> None:
    async with subject.open([_patient]) as backend, _still(subject):
        elsewhere: FunctionRef[Any, Any] = FunctionRef("c32-done")
        run = await backend.start(elsewhere, {"a": 1}, run_id=subject.run_id())
        wait = await _waits(subject, run, "worker")
        assert (wait.name, run.status) == ("c32-done", RunStatus.WAITING)
    async with subject.open([_done]) as backend:
        assert await (await backend.run(run.id)).result() == {"a": 1}


@clause
async def test_c32_runs_are_found_by_their_tags(subject: Subject) -> None:
    mine, theirs = f"tenant:{subject.token}", f"other:{subject.token}"
    async with subject.open([_done]) as backend:
        for number, tags in enumerate(([mine], [mine, theirs], [theirs], [])):
            await (await backend.start(_done, number, run_id=subject.run_id(number), tags=tags)).result()
        for wanted, numbers in (([mine], [1, 0]), ([mine, theirs], [1]), ([theirs], [2, 1])):
            found = await _settled(backend.runs, len(numbers), wanted)
            assert sorted(run.id for run in found) == sorted(map(subject.run_id, numbers)), wanted
        assert set((await backend.run(subject.run_id(1))).view.tags) == {mine, theirs}
        assert await backend.count_runs(tags=[mine]) == {RunStatus.COMPLETED: 2}


async def _settled(runs: Any, number: int, tags: list[str]) -> list[Run[Any]]:
    """The runs with these tags, once there are so many: some engines list what they have with a delay."""
    while len(found := await runs(tags=tags)) < number:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return list(found)


@clause
async def test_c32_an_event_before_the_first_worker_starts_its_function_once(subject: Subject) -> None:
    @function("c32-early", triggers=[f"c32/{subject.token}"])
    async def early(ctx: Context[Any]) -> Any:
        return ctx.input

    @function("c32-late", triggers=[f"c32/{subject.token}"])
    async def late(ctx: Context[Any]) -> Any:
        return ctx.input

    async with subject.open([_done]) as backend:
        await backend.send(Event(f"c32/{subject.token}", "kept"))
    for functions in ([early], [early], [early, late]):
        async with subject.open(functions) as backend:
            while not (found := await backend.runs(text="")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            (run,) = found
            assert (await run.ended()).view.output == '"kept"', "once, and by the first function of that name alone"
            assert run.view.function == early.id
