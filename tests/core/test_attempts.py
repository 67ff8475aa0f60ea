"""A function's attempt whose coroutine an engine throws away, and one that raises what such a coroutine gets."""

from __future__ import annotations

import asyncio

import pytest

from durably.core import Context, Event, NonRetriableError, function
from durably.core.attempts import StepCall, run_step
from durably.core.environment import Environment
from durably.core.errors import SuspendSignal
from durably.core.function_attempts import run_function
from durably.core.replay import RecordedSteps
from durably.core.secrets import Redactor

pytestmark = pytest.mark.asyncio

ENVIRONMENT = Environment(resources={}, redactor=Redactor(), max_payload_bytes=1_000)


@function("waiting")
async def waiting(ctx: Context[None]) -> None:
    await asyncio.get_running_loop().create_future()


@function("raising")
async def raising(ctx: Context[None]) -> None:
    raise GeneratorExit


async def test_an_attempt_that_is_thrown_away_lets_itself_be_closed() -> None:
    attempt = run_function(waiting, RecordedSteps([]), Event("go"), ENVIRONMENT, run_id="r", attempt=1)

    async def start() -> None:
        assert attempt.send(None) is not None

    await asyncio.create_task(start())
    attempt.close()  # any exception but GeneratorExit would come out here


async def test_code_that_raises_generator_exit_fails_its_attempt() -> None:
    with pytest.raises(NonRetriableError, match="GeneratorExit"):
        await run_function(raising, RecordedSteps([]), Event("go"), ENVIRONMENT, run_id="r", attempt=1)


async def test_a_body_whose_run_is_lost_before_its_task_has_its_turn_does_not_begin() -> None:
    lost: list[bool] = []
    began: list[str] = []

    async def body() -> None:
        began.append("body")

    def before_body() -> None:
        if lost:
            raise SuspendSignal

    asyncio.get_running_loop().call_soon(lost.append, True)  # before the task of the body, which is made later
    with pytest.raises(SuspendSignal):
        await run_step(
            StepCall.of("a", body, ()),
            ENVIRONMENT,
            function="f",
            run_id="r",
            attempt=1,
            before_body=before_body,
        )
    assert began == []
