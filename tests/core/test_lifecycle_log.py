"""What the log says of runs, and what each of its records carries."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Context, InvokeError, Observer, RetryPolicy, function

pytestmark = pytest.mark.asyncio

FIELDS = ("run_id", "function", "step", "attempt")


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[tuple[Any, ...]]:
    """Level, fields and message of the records of a logger."""
    found = [record for record in caplog.records if record.name.startswith(name)]
    return [(r.levelname, *(getattr(r, field) for field in FIELDS), r.getMessage()) for r in found]


async def test_a_run_is_followed_through_the_log(caplog: pytest.LogCaptureFixture) -> None:
    failures = ["once"]

    async def flaky() -> None:
        if failures:
            raise ConnectionError(failures.pop())

    @function("followed", retry_policy=RetryPolicy(initial=2, jitter=0))
    async def followed(ctx: Context[None]) -> None:
        await ctx.step.run("flaky", flaky)
        await ctx.step.wait_for_event("answer", "an/answer", timeout=10)

    caplog.set_level(logging.DEBUG, "durably")
    async with MemoryBackend([followed]) as backend:
        await (await backend.start(followed, run_id="r")).result()
    assert said(caplog, "durably.lifecycle") == [
        ("INFO", "r", "followed", "", 1, "run r of 'followed' started"),
        (
            "DEBUG",
            "r",
            "followed",
            "answer",
            1,
            "run r of 'followed' waits in step 'answer': wait_for_event 'an/answer'",
        ),
        ("INFO", "r", "followed", "", 1, "run r of 'followed' completed"),
    ]
    (failed,) = (record for record in caplog.records if record.name == "durably")
    assert [getattr(failed, field) for field in ("levelname", *FIELDS)] == ["WARNING", "r", "followed", "flaky", 1]


async def test_a_failed_run_is_told_of_as_such(caplog: pytest.LogCaptureFixture) -> None:
    @function("failing", retries=1, retry_policy=RetryPolicy(initial=2, jitter=0))
    async def failing(ctx: Context[None]) -> None:
        raise ValueError("no")

    caplog.set_level(logging.INFO, "durably")
    async with MemoryBackend([failing]) as backend:
        with pytest.raises(InvokeError):
            await (await backend.start(failing, run_id="r")).result()
    assert [line[-1] for line in said(caplog, "durably.lifecycle")] == [
        "run r of 'failing' started",
        "run r of 'failing' failed",
    ]
    failed = [record for record in caplog.records if record.name == "durably"]
    assert [(record.levelname, vars(record)["attempt"]) for record in failed] == [("WARNING", 1), ("ERROR", 2)]


async def test_a_cancelled_run_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    @function("waiting")
    async def waiting(ctx: Context[None]) -> None:
        await ctx.step.wait_for_event("for-ever", "never")

    caplog.set_level(logging.INFO, "durably")
    async with MemoryBackend([waiting]) as backend:
        run = await backend.start(waiting, run_id="r")
        await backend.drain()
        await run.cancel()
    assert [line[-1] for line in said(caplog, "durably.lifecycle")] == [
        "run r of 'waiting' started",
        "run r of 'waiting' cancelled",
    ]


async def test_the_runs_own_lines_carry_where_they_come_from(caplog: pytest.LogCaptureFixture) -> None:
    @function("talking", retries=1, retry_policy=RetryPolicy(initial=2, jitter=0))
    async def talking(ctx: Context[None]) -> None:
        failures = iter([ctx.attempt])

        async def body(name: str) -> None:
            ctx.logger.warning("in %s", name, extra={"order": 7})

        def threaded() -> None:
            ctx.logger.warning("in a thread")

        ctx.logger.warning("begins")
        await ctx.step.gather(lambda: ctx.step.run("one", body, "one"), lambda: ctx.step.run("two", threaded))
        if next(failures) == 1:
            raise ConnectionError
        ctx.logger.warning("ends")

    async with MemoryBackend([talking]) as backend:
        await (await backend.start(talking, run_id="r")).result()
    first, *branches, last = said(caplog, "durably.run")
    assert first == ("WARNING", "r", "talking", "", 1, "begins")
    assert sorted(branches) == [
        ("WARNING", "r", "talking", "gather[0]/one", 1, "in one"),
        ("WARNING", "r", "talking", "gather[1]/two", 1, "in a thread"),
    ]
    assert last == ("WARNING", "r", "talking", "", 2, "ends")
    (line,) = (record for record in caplog.records if record.getMessage() == "in one")
    assert vars(line)["order"] == 7, "what the caller adds is kept"


async def test_what_is_no_observer_is_refused() -> None:
    given: Any = print
    with pytest.raises(TypeError, match=r"observers= takes subclasses of durably\.core\.Observer, not <built-in"):
        MemoryBackend([], observers=[given])


async def test_a_backend_without_observers_is_not_asked_about_steps() -> None:
    class Patient(Observer):
        def run_ended(self, event: Any) -> None:
            raise AssertionError(event)

    assert not MemoryBackend([]).environment.observers.steps
    assert not MemoryBackend([], observers=[Patient()]).environment.observers.steps
