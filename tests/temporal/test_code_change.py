"""Code that changed while a run was in flight: whatever the change, the run ends, and says what did not fit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowExecutionStatus

from durably.backends.temporal.pace import SEVERAL
from durably.core import Context, Event, InvokeError, Run, Singleton, StepTimeoutError, current_step, function
from durably.core.functions import FailedRun
from durably.core.ids import new_id
from durably.core.run_view import RunStatus
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

OPTIONS: dict[str, Any] = {"heartbeat": timedelta(seconds=1)}
SOON: dict[str, Any] = {"sticky_queue_schedule_to_start_timeout": timedelta(seconds=1)}

Op = tuple[str, str, Any]

PROGRAM: list[Op] = [
    ("named", "a", 1),
    ("closure", "b", 2),
    ("retried", "c", 3),
    ("sleep", "d", 0.01),
    ("invoke", "e", 5),
    ("send", "f", 6),
    ("missed", "g", 0.01),
    ("met", "m", 7),
    ("late", "n", 60),
    (
        "gather",
        "h",
        [[("named", "left", 8), ("sleep", "nap", 0.02)], [("invoke", "right", 9)], [("closure", "mid", 1)]],
    ),
    ("named", "i", 10),
]
"""Every kind of step. The run then waits for an event, which comes when its code has changed."""

CODE: dict[str, list[Op]] = {}
"""What the code of a run is now, by run id: a change of it is a deployment."""

EFFECTS: Counter[tuple[str, str]] = Counter()


async def effect(name: str) -> str:
    EFFECTS[current_step().run_id, name] += 1
    return name


async def flaky(name: str) -> str:
    await effect(name)
    if current_step().attempt == 1:
        raise ConnectionError("once")
    return name


def closure(body: Callable[[str], Awaitable[str]]) -> Callable[[str], Awaitable[str]]:
    """A body without a name, which does what another one does."""

    async def call(name: str) -> str:
        return await body(name)

    return call


@function("inner")
async def inner(ctx: Context[int]) -> int:
    return ctx.input


@function("sleeper")
async def sleeper(ctx: Context[float]) -> None:
    await ctx.step.sleep("long", ctx.input)


async def perform(ctx: Context[Any], op: Op) -> Any:
    step, (kind, name, value) = ctx.step, op
    match kind:
        case "named":
            return await step.run(name, effect, f"{name} {value}")
        case "closure":
            return await step.run(name, closure(effect), f"{name} {value}")
        case "retried":
            return await step.run(name, closure(flaky), f"{name} {value}")
        case "sleep":
            return await step.sleep(name, value)
        case "invoke":
            return await step.invoke(name, inner, value)
        case "send":
            return await step.send_event(name, Event("changed/sent", value))
        case "met":
            return await step.gather(
                lambda: step.wait_for_event(name, "changed/met", match={"run": ctx.run_id}, timeout=60),
                lambda: step.send_event(name, Event("changed/met", {"run": ctx.run_id, "value": value})),
            )
        case "late":
            with suppress(StepTimeoutError):
                return await step.invoke(name, sleeper, value, timeout=0.05)
        case "missed":
            return await step.wait_for_event(name, "changed/missed", timeout=value)
        case "raise":
            raise ValueError("a bug was deployed")
        case _:
            return await step.gather(*(lambda ops=ops: perform_all(ctx, ops) for ops in value))


async def perform_all(ctx: Context[Any], ops: list[Op]) -> None:
    for op in ops:
        await perform(ctx, op)


@function("changing", retries=1)
async def changing(ctx: Context[None]) -> str:
    await perform_all(ctx, CODE.get(ctx.run_id, PROGRAM))
    await ctx.step.wait_for_event("go", "changed/go", match={"run": ctx.run_id})
    return "ended"


def changes() -> Iterator[tuple[str, list[Op]]]:
    """Changed programs, each with what was changed."""
    for place, (kind, name, value) in enumerate(PROGRAM):
        before, after = PROGRAM[:place], PROGRAM[place + 1 :]
        other = value[:2] if kind == "gather" else value + 1
        renamed: Op = (kind, name, [[("named", "x", 8)], *value[1:]]) if kind == "gather" else (kind, "x", value)
        yield f"{name} gone", [*before, *after]
        yield f"{name} inserted", [*before, ("named", "x", 0), *PROGRAM[place:]]
        yield f"{name} renamed", [*before, renamed, *after]
        yield f"{name} of another kind", [*before, ("named" if kind != "named" else "sleep", name, 7), *after]
        yield f"{name} with another input", [*before, (kind, name, other), *after]
        yield f"ended before {name}", before
        yield f"failed before {name}", [*before, ("raise", "", None), *PROGRAM[place:]]


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    yield
    CODE.clear()
    EFFECTS.clear()


async def begin(open_temporal: OpenTemporal, ids: Sequence[str], **options: Any) -> None:
    """Start runs, and let each come to its last wait."""
    async with open_temporal(changing, inner, sleeper, **OPTIONS, **options) as backend:
        runs = [await backend.start(changing, run_id=run_id) for run_id in ids]
        for run in runs:
            await until_it_waits(run)


async def until_it_waits(run: Run[Any]) -> None:
    """Wait until a run has come to its last wait, and is written down as far as that."""
    while not any(record.key == "go" for record in await run.history()):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("cache", "every"), [(100, 2), (0, 11)])
async def test_whatever_was_changed_the_run_ends_and_says_so(
    open_temporal: OpenTemporal, cache: int, every: int
) -> None:
    all_changes = list(changes())[::every]
    worker = {**SOON, "max_cached_workflows": cache}
    ids = [new_id() for _ in all_changes]
    await begin(open_temporal, ids, worker_options=worker)
    done = Counter(EFFECTS)
    CODE.update({run_id: code for run_id, (_, code) in zip(ids, all_changes, strict=True)})
    async with open_temporal(changing, inner, sleeper, worker_options=worker, **OPTIONS) as backend:
        await backend.send(*(Event("changed/go", {"run": run_id}) for run_id in ids))
        for run_id, (what, _) in zip(ids, all_changes, strict=True):
            run = await backend.run(run_id)
            with pytest.raises(InvokeError) as caught:
                await run.result()
            assert caught.value.error_type == "NonDeterminismError", f"{what}: {caught.value}"
            error = (await run.history())[-1].error
            assert all(error[part] for part in ("step", "recorded", "asked")), what
            found = await backend.client.get_workflow_handle(run_id).describe()
            assert found.status is WorkflowExecutionStatus.FAILED, what
    assert done == EFFECTS, "it is noticed before any new effect"


async def test_code_that_did_not_change_goes_on(open_temporal: OpenTemporal) -> None:
    run_id = new_id()
    await begin(open_temporal, [run_id], worker_options=SOON)
    done = Counter(EFFECTS)
    async with open_temporal(changing, inner, sleeper, worker_options=SOON, **OPTIONS) as backend:
        await backend.send(Event("changed/go", {"run": run_id}))
        assert await (await backend.run(run_id)).result() == "ended"
    assert done == EFFECTS


@pytest.mark.parametrize("by", ["this version", "an earlier version"])
async def test_runs_may_wait_until_their_code_is_back(
    open_temporal: OpenTemporal, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was changed, and also where the history holds no marker of a version of this library."""
    options: dict[str, Any] = {"worker_options": SOON, "on_code_change": "wait", **OPTIONS}
    wide: Op = ("gather", "w", [[("named", f"w{number}", number)] for number in range(SEVERAL + 1)])
    all_changes = list(changes())[1::17]
    ids = [new_id() for _ in all_changes]
    fitting = {run_id: [*PROGRAM, wide] for run_id in ids}
    CODE.update(fitting)
    with monkeypatch.context() as earlier:
        if by == "an earlier version":
            earlier.setattr(workflow, "patched", lambda _: False)
        await begin(open_temporal, ids, worker_options=SOON)
    done = Counter(EFFECTS)
    CODE.update({run_id: [*code, wide] for run_id, (_, code) in zip(ids, all_changes, strict=True)})
    async with open_temporal(changing, inner, sleeper, **options) as backend:
        await backend.send(*(Event("changed/go", {"run": run_id}) for run_id in ids))
        for run_id, (what, _) in zip(ids, all_changes, strict=True):
            run = await backend.run(run_id)
            while run.status is not RunStatus.STUCK:
                await asyncio.sleep(0.05)  # the server says so only when asked
                run = await backend.run(run_id)
            assert run.view.stuck is not None, what
            assert "recorded" in run.view.stuck.message, what
            workflow_run = backend.client.get_workflow_handle(run_id)
            assert (await workflow_run.describe()).status is WorkflowExecutionStatus.RUNNING, what
            events = (await workflow_run.fetch_history()).events
            patches = [each for each in events if each.marker_recorded_event_attributes.marker_name == "core_patch"]
            assert bool(patches) is (by == "this version"), what
    CODE.update(fitting)
    async with open_temporal(changing, inner, sleeper, **options) as backend:
        for run_id in ids:
            assert await (await backend.run(run_id)).result() == "ended"
    assert done == EFFECTS, "no body ran while the code did not fit, and none again when it did"


async def test_what_only_temporal_sees_ends_the_run_too(open_temporal: OpenTemporal) -> None:
    pause = [0.01]

    @function("pausing")
    async def pausing(ctx: Context[None]) -> None:
        await ctx.step.run("a", effect, "a")
        if pause[0]:
            await asyncio.sleep(pause[0])  # a timer of Temporal's that is no step
        await ctx.step.run("b", effect, "b")
        await ctx.step.wait_for_event("go", "changed/go")

    async with open_temporal(pausing, worker_options=SOON, **OPTIONS) as backend:
        run = await backend.start(pausing)
        await until_it_waits(run)
    pause[0] = 0
    async with open_temporal(pausing, worker_options=SOON, **OPTIONS) as backend:
        await backend.send(Event("changed/go"))
        with pytest.raises(InvokeError) as caught:
            await (await backend.run(run.id)).result()
    assert caught.value.error_type == "NonDeterminismError"
    assert EFFECTS.total() == 2


async def test_such_an_end_starts_the_handler_and_frees_the_place(open_temporal: OpenTemporal) -> None:
    told: list[str] = []
    names = ["a"]

    async def clean_up(ctx: Context[FailedRun]) -> None:
        told.append(ctx.input.error["type"])

    @function("single", on_failure=clean_up, singleton=Singleton(key="key", mode="skip"))
    async def single(ctx: Context[dict[str, str]]) -> str:
        await ctx.step.run(names[0], effect, "a")
        if ctx.input["go"] == "later":
            await ctx.step.wait_for_event("go", "changed/go")
        return "ended"

    async with open_temporal(single, worker_options=SOON, **OPTIONS) as backend:
        run = await backend.start(single, {"key": "k", "go": "later"})
        await until_it_waits(run)
    names[0] = "x"
    async with open_temporal(single, worker_options=SOON, **OPTIONS) as backend:
        await backend.send(Event("changed/go"))
        with pytest.raises(InvokeError):
            await (await backend.run(run.id)).result()
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert told == ["NonDeterminismError"]
        assert await backend.invoke(single, {"key": "k", "go": "now"}) == "ended"
