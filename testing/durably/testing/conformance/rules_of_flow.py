"""C30 for each rule by itself: a key that is absent, a worker that comes and goes, and two workers at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from durably.core import Backend, Context, Function, RunStatus, Singleton, function
from durably.core.errors import MissingKeyError, UnsupportedFeatureError
from durably.core.flow import Batch, Concurrency, Debounce, Priority, RateLimit, Throttle
from durably.testing.conformance.flow_control import Seen, bystander, opened, send
from durably.testing.conformance.subject import Subject
from durably.testing.conformance.suite import RefusedError, clause


def _rules(period: float) -> dict[str, dict[str, Any]]:
    """Each rule that has a key, as options of a function."""
    return {
        "debounce": {"debounce": Debounce(period=period, key="user")},
        "throttle": {"throttle": Throttle(limit=1, period=period, key="user")},
        "rate_limit": {"rate_limit": RateLimit(limit=1, period=period, key="user")},
        "idempotency": {"idempotency": "user"},
        "batch": {"batch": Batch(max_size=2, timeout=period, key="user")},
        "concurrency": {"concurrency": Concurrency(limit=1, key="user")},
        "queue": {"singleton": Singleton("user", mode="queue")},
    }


RuleTest = Callable[[Subject, str], Awaitable[None]]


def _for_each_rule(test: RuleTest) -> RuleTest:
    """Add a test to the suite for each rule."""
    for rule in _rules(1):

        def ruled(subject: Subject, rule: str = rule) -> Awaitable[None]:
            return test(subject, rule)

        ruled.__name__ = ruled.__qualname__ = f"{test.__name__}_{rule}"
        globals()[ruled.__name__] = clause(ruled)
    return test


def _period(subject: Subject) -> float:
    return float(math.ceil(subject.unit))


@_for_each_rule
async def test_c30_runs_without_a_key_fail_visibly_under(subject: Subject, rule: str) -> None:
    period = _period(subject)
    seen = Seen(subject, **_rules(period)[rule])
    async with seen.open() as backend:
        await send(backend, {"n": 1}, {"n": 2, "user": None}, {"n": 3, "user": "ann"}, {"n": 4})
        await backend.invoke(bystander, 2 * period)
        runs = list(await backend.runs(function=seen.function))
        for run in runs:
            await subject.until_ended(run)
        failed = [run.view.error or {} for run in runs if run.status is RunStatus.FAILED]
    assert [error.get("type") for error in failed] == [MissingKeyError.__name__] * 3
    asked = "singleton" if rule == "queue" else rule
    assert [(error["option"], error["key"]) for error in failed] == [(asked, "user")] * 3
    one = {"n": 3, "user": "ann"}
    assert seen.inputs == [[one] if rule == "batch" else one], "the others are in no group, of strangers or of anybody"


@clause
async def test_c30_two_workers_hold_one_limit_between_them(subject: Subject) -> None:
    if subject.unit < 60:
        raise RefusedError("how many bodies run at a time is looked at here in this process alone")
    running: list[str] = []
    most: list[int] = []
    done: list[str] = []

    async def body(name: str) -> None:
        running.append(name)
        most.append(len(running))
        for _ in range(10):
            await asyncio.sleep(0.001)
        running.remove(name)
        done.append(name)

    @function("shared", concurrency=Concurrency(limit=2))
    async def shared(ctx: Context[str]) -> None:
        await ctx.step.run("body", body, ctx.input)

    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(opened(subject, shared)) for _ in range(2)]
        for number in range(8):
            await workers[number % 2].start(shared, f"{number}")
        await subject.until(lambda: len(done) == 8)
    assert max(most) == 2


@clause
async def test_c30_two_workers_drop_the_surplus_between_them(subject: Subject) -> None:
    period = 100 * _period(subject)
    seen = Seen(subject, rate_limit=RateLimit(limit=2, period=period))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(seen.open())
        second = await stack.enter_async_context(seen.open())
        seen.backend = first
        for number in range(3):
            await send(first, {"n": 2 * number})
            await send(second, {"n": 2 * number + 1})
        await subject.until(lambda: len(seen.inputs) >= 2)
        runs = list(await first.runs(function=seen.function))
    assert len(seen.inputs) == 2
    assert [run.status for run in runs].count(RunStatus.COMPLETED) <= 2


@clause
async def test_c30_the_rules_hold_over_a_worker_that_comes_and_goes(subject: Subject) -> None:
    period = 3 * _period(subject)
    limited = Seen(subject, rate_limit=RateLimit(limit=1, period=period, key="user"))
    for number in range(3):
        async with limited.open() as backend:
            await send(backend, {"user": "ann", "n": number})
            if not number:
                await subject.until(lambda: limited.inputs != [])
    async with limited.open() as backend:
        await backend.invoke(bystander, period)
        await send(backend, {"user": "ann", "n": 3})
        await subject.until(lambda: len(limited.inputs) > 1)
    assert [each["n"] for each in limited.inputs] == [0, 3]


# A cron takes no such input: it has a test of its own where an engine has none.
_ALL_RULES: dict[str, dict[str, Any]] = {
    **_rules(60),
    "priority": {"priority": Priority("60")},
    "singleton": {"singleton": Singleton("user", mode="skip")},
}


def missing_rules(backend: Backend, made: Function[Any, Any]) -> list[str]:
    """The rules of a function that an engine says it has not."""
    return [rule for rule in made.flow_control if backend.capabilities.flow_control[rule].how == "refused"]


@clause
async def test_c30_a_rule_that_is_missing_is_refused_when_the_backend_is_made(subject: Subject) -> None:
    async def ruled(ctx: Context[Any]) -> None:
        return

    made = [function(f"c30-{rule}", **options)(ruled) for rule, options in _ALL_RULES.items()]
    await what_is_missing_is_refused(subject, made, otherwise="this engine has every rule")


async def what_is_missing_is_refused(subject: Subject, made: Sequence[Function[Any, Any]], *, otherwise: str) -> None:
    """See that no backend takes a function with a rule that it has not; ``otherwise``: why there is none to try."""
    async with subject.open([]) as backend:
        missing = [each for each in made if missing_rules(backend, each)]
    if not missing:
        raise RefusedError(otherwise)
    for each in missing:
        assert await is_refused(subject, each), f"{each.id} was taken, although its rule is declared to be missing"


async def is_refused(subject: Subject, made: Function[Any, Any]) -> bool:
    """Whether no backend can be made that serves a function."""
    try:
        async with subject.open([made]):
            return False
    except UnsupportedFeatureError:
        return True
