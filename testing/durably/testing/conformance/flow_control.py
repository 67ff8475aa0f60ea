"""C22 and C30: singletons that queue, and the other rules that decide when a run begins or goes on."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from itertools import pairwise
from typing import Any

from durably.core import Backend, Context, Event, Function, RunStatus, Singleton, function
from durably.core.errors import MissingKeyError, UnsupportedFeatureError
from durably.core.flow import Batch, Concurrency, Cron, CronTick, Debounce, Priority, RateLimit, Throttle
from durably.core.steps import Point, Probe
from durably.testing.conformance.subject import Kill, Subject, at
from durably.testing.conformance.suite import RefusedError, clause

__all__: list[str] = []

EVENT = "c30/came"


@function("c30-bystander")
async def bystander(ctx: Context[float]) -> None:
    """Lets so many seconds pass."""
    await ctx.step.sleep("nap", ctx.input)


@asynccontextmanager
async def opened(subject: Subject, *functions: Function[Any, Any], **options: Any) -> AsyncIterator[Backend]:
    """A running backend, or a gap if it refuses a rule of one of the functions."""
    async with AsyncExitStack() as stack:
        try:
            backend = await stack.enter_async_context(subject.open([*functions, bystander], **options))
        except UnsupportedFeatureError as error:
            raise RefusedError(str(error)) from None
        yield backend


async def send(backend: Backend, *data: dict[str, Any]) -> None:
    """Send events one after another."""
    for each in data:
        await backend.send(Event(EVENT, each))


class Seen:
    """What the runs of a function were started with, in the order of their beginning."""

    def __init__(self, subject: Subject, **options: Any) -> None:
        self.subject = subject
        self.inputs: list[Any] = []
        self.moments: list[float] = []
        self.backend: Backend | None = None

        async def note(data: Any) -> None:
            assert self.backend is not None
            self.inputs.append(data)
            self.moments.append(subject.now(self.backend))

        @function("noted", triggers=[EVENT], **options)
        async def noted(ctx: Context[Any]) -> None:
            await ctx.step.run("note", note, ctx.input)

        self.function: Function[Any, Any] = noted

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backend]:
        async with opened(self.subject, self.function) as backend:
            self.backend = backend
            yield backend


# -- singletons that queue


@clause
async def test_c22_queue_lets_the_runs_of_a_key_follow_each_other(subject: Subject) -> None:
    said: list[str] = []

    async def say(text: str) -> None:
        said.append(text)

    @function("one-by-one", singleton=Singleton("user.id", mode="queue"))
    async def one_by_one(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.run("begin", say, f"{ctx.input['name']} begins")
        await ctx.step.sleep("nap", subject.unit / 2)
        await ctx.step.run("end", say, f"{ctx.input['name']} ends")

    async with opened(subject, one_by_one) as backend:
        inputs = [{"user": {"id": 1 + (name == "other")}, "name": name} for name in ("a", "b", "other", "c")]
        runs = [await backend.start(one_by_one, each) for each in inputs]
        await subject.until(lambda: {"a begins", "other begins"} <= set(said))
        waiting = await runs[1].refresh()
        # Where a server has to be asked, it is told a little later, and before that the run waits for a worker.
        while waiting.status is RunStatus.RUNNING or waiting.view.waiting_for[0].kind == "worker":
            await asyncio.sleep(0.01)
            waiting = await runs[1].refresh()
        assert waiting.status is RunStatus.WAITING
        assert [(each.kind, each.name) for each in waiting.view.waiting_for] == [("turn", "singleton")]
        for run in runs:
            await run.result()
        assert {(await run.refresh()).status for run in runs} == {RunStatus.COMPLETED}
    mine = [text for text in said if not text.startswith("other")]
    assert mine == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]
    assert said.index("other ends") < said.index("b ends"), "another key waits for nobody"


@clause
async def test_c22_queue_goes_on_after_a_crash(subject: Subject) -> None:
    ended: list[str] = []

    async def end(name: str) -> None:
        ended.append(name)

    @function("one-by-one", triggers=[EVENT], singleton=Singleton("user", mode="queue"))
    async def one_by_one(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.sleep("nap", subject.unit / 4)
        await ctx.step.run("end", end, ctx.input["name"])

    async with opened(subject, one_by_one) as backend:
        backend.probe = _kill_at("end")
        await send(backend, *({"user": 1, "name": name} for name in ("a", "b", "c")))
        with suppress(Kill):
            await backend.invoke(bystander, 9 * subject.unit)
    async with opened(subject, one_by_one) as backend:
        await _until(subject, backend, lambda: len(set(ended)) == 3)
    assert list(dict.fromkeys(ended)) == ["a", "b", "c"]
    assert max(Counter(ended).values()) <= 2, "only what the crash cut off runs again"


@clause
async def test_c22_queue_is_not_held_up_by_runs_that_were_cancelled(subject: Subject) -> None:
    begun: list[str] = []

    async def begin(name: str) -> None:
        begun.append(name)

    @function("one-by-one", singleton=Singleton(mode="queue"))
    async def one_by_one(ctx: Context[str]) -> None:
        await ctx.step.run("begin", begin, ctx.input)
        if ctx.input == "a":
            await ctx.step.wait_for_event("for-ever", "c22/never")

    async with opened(subject, one_by_one) as backend:
        a, b, c = [await backend.start(one_by_one, name) for name in "abc"]
        await subject.until(lambda: begun == ["a"])
        await b.cancel()
        await a.cancel()
        await c.result()
    assert begun == ["a", "c"]


# -- when a run begins


@clause
async def test_c30_debounce_starts_one_run_with_the_last_event(subject: Subject) -> None:
    seen = Seen(subject, debounce=Debounce(period=_period(subject), key="user"))
    async with seen.open() as backend:
        await send(backend, {"user": 1, "n": 1}, {"user": 2, "n": 1}, {"user": 1, "n": 2}, {"user": 1, "n": 3})
        assert seen.inputs == []
        await _until(subject, backend, lambda: len(seen.inputs) == 2)
        await backend.invoke(bystander, 2 * _period(subject))
    assert sorted(map(str, seen.inputs)) == ["{'user': 1, 'n': 3}", "{'user': 2, 'n': 1}"]


@clause
async def test_c30_debounce_survives_the_worker(subject: Subject) -> None:
    seen = Seen(subject, debounce=Debounce(period=_period(subject)))
    async with seen.open() as backend:
        await send(backend, {"n": 1}, {"n": 2})
    async with seen.open() as backend:
        await _until(subject, backend, lambda: seen.inputs != [])
        await backend.invoke(bystander, 2 * _period(subject))
    assert seen.inputs == [{"n": 2}]


@clause
async def test_c30_throttle_lets_the_surplus_wait(subject: Subject) -> None:
    period = _period(subject)
    seen = Seen(subject, throttle=Throttle(limit=1, period=period, key="user"))
    async with seen.open() as backend:
        await send(backend, *({"user": 1, "n": n} for n in range(4)), {"user": 2, "n": 0})
        await _until(subject, backend, lambda: len(seen.inputs) == 5)
    assert sorted(each["n"] for each in seen.inputs if each["user"] == 1) == [0, 1, 2, 3], "nothing is dropped"
    moments = [moment for each, moment in zip(seen.inputs, seen.moments, strict=True) if each["user"] == 1]
    # The limit of one and a burst of one at once, then one in each period.
    assert moments[2] - moments[0] > 0.8 * period
    assert moments[3] - moments[1] > 1.8 * period


@clause
async def test_c30_rate_limit_drops_the_surplus(subject: Subject) -> None:
    period = 2 * _period(subject)
    seen = Seen(subject, rate_limit=RateLimit(limit=1, period=period, key="user"))
    async with seen.open() as backend:
        await send(backend, {"user": 1, "n": 1}, {"user": 1, "n": 2}, {"user": 2, "n": 1})
        await backend.invoke(bystander, period * 1.5)
        await send(backend, {"user": 1, "n": 3})
        await _until(subject, backend, lambda: len(seen.inputs) >= 3)
        await backend.invoke(bystander, period / 2)
    assert Counter(map(str, seen.inputs)) == Counter(
        ["{'user': 1, 'n': 1}", "{'user': 2, 'n': 1}", "{'user': 1, 'n': 3}"]
    )


@clause
async def test_c30_idempotency_starts_one_run_for_a_value(subject: Subject) -> None:
    seen = Seen(subject, idempotency="order.id")
    async with seen.open() as backend:
        await send(backend, {"order": {"id": 1}}, {"order": {"id": 1}}, {"order": {"id": 2}})
        await _until(subject, backend, lambda: len(seen.inputs) >= 2)
    async with seen.open() as backend:
        await send(backend, {"order": {"id": 2}})
        await backend.invoke(bystander, subject.unit / 2)
    assert sorted(each["order"]["id"] for each in seen.inputs) == [1, 2]


@clause
async def test_c30_batch_starts_one_run_for_several_events(subject: Subject) -> None:
    seen = Seen(subject, batch=Batch(max_size=2, timeout=_period(subject), key="user"))
    async with seen.open() as backend:
        await send(backend, *({"user": user, "n": n} for user, n in [(1, 1), (2, 1), (1, 2), (1, 3)]))
    async with seen.open() as backend:
        await _until(subject, backend, lambda: len(seen.inputs) == 3)
    batches = [sorted((each["user"], each["n"]) for each in batch) for batch in seen.inputs]
    assert sorted(batches) == [[(1, 1), (1, 2)], [(1, 3)], [(2, 1)]]


@clause
async def test_c30_priority_goes_first_in_the_queue(subject: Subject) -> None:
    seen = Seen(subject, throttle=Throttle(limit=1, period=_period(subject)), priority=Priority("urgency"))
    async with seen.open() as backend:
        await send(backend, {"n": 0}, {"n": 1}, {"n": 2}, {"n": 3, "urgency": 300}, {"n": 4, "urgency": 600})
        await _until(subject, backend, lambda: len(seen.inputs) == 5)
    assert [each["n"] for each in seen.inputs] == [0, 1, 4, 3, 2]


@clause
async def test_c30_concurrency_limits_the_bodies_of_a_key(subject: Subject) -> None:
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    done: list[str] = []

    async def body(user: str) -> None:
        running[user] += 1
        most[user] = max(most[user], running[user])
        for _ in range(20):
            await asyncio.sleep(0.001)
        running[user] -= 1
        done.append(user)

    @function("limited", triggers=[EVENT], concurrency=Concurrency(limit=2, key="user"))
    async def limited(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.run("before", body, ctx.input["user"])
        await ctx.step.sleep("nap", subject.unit / 4)
        await ctx.step.run("after", body, ctx.input["user"])

    async with opened(subject, limited) as backend:
        await send(backend, *({"user": "ab"[n % 2], "n": n} for n in range(8)))
        await _until(subject, backend, lambda: len(done) == 16)
    assert most == {"a": 2, "b": 2}


@clause
async def test_c30_concurrency_does_not_count_a_dead_worker(subject: Subject) -> None:
    done: list[str] = []
    limit = Concurrency(limit=1, key="pool", scope="env")

    async def body(name: str) -> None:
        done.append(name)

    @function("first", concurrency=limit)
    async def first(ctx: Context[dict[str, str]]) -> None:
        await ctx.step.run("body", body, "first")

    @function("second", concurrency=limit)
    async def second(ctx: Context[dict[str, str]]) -> None:
        await ctx.step.run("body", body, "second")

    async with opened(subject, first, second) as backend:
        backend.probe = _kill_at("body")
        with suppress(Kill):
            await (await backend.start(first, {"pool": "a"})).result()
    async with opened(subject, second) as backend:  # nobody goes on with the run that was cut off
        await backend.start(second, {"pool": "a"})
        await _until(subject, backend, lambda: "second" in done)


@clause
async def test_c30_cron_starts_one_run_for_each_time(subject: Subject) -> None:
    if subject.unit < 60:
        raise RefusedError("a cron comes once a minute at most, and this subject's time is real")
    ticks: list[datetime] = []

    async def note(at: datetime) -> None:
        ticks.append(at)

    @function("hourly", cron="30 * * * *")
    async def hourly(ctx: Context[CronTick]) -> None:
        await ctx.step.run("note", note, ctx.input.at)

    for _ in range(3):
        async with opened(subject, hourly) as backend:
            began = subject.now(backend)
            await backend.invoke(bystander, 3600.0)
            assert subject.now(backend) >= began + 3600
    hours = [moment.timestamp() for moment in ticks]
    assert len(hours) == 3
    assert all(later - earlier == 3600 for earlier, later in pairwise(hours))
    assert all(moment % 3600 == 1800 for moment in hours)


@clause
async def test_c30_cron_makes_up_for_what_was_missed_as_chosen(subject: Subject) -> None:
    if subject.unit < 60:
        raise RefusedError("a cron comes once a minute at most, and this subject's time is real")
    ticks: dict[str, list[datetime]] = {"once": [], "each": []}

    async def note(missed: str, at: datetime) -> None:
        ticks[missed].append(at)

    @function("missed-once", cron=Cron("30 * * * *"))
    async def once(ctx: Context[CronTick]) -> None:
        await ctx.step.run("note", note, "once", ctx.input.at)

    @function("missed-each", cron=Cron("30 * * * *", missed="each"))
    async def each(ctx: Context[CronTick]) -> None:
        await ctx.step.run("note", note, "each", ctx.input.at)

    async with opened(subject, once, each) as backend:
        began = subject.now(backend)
    async with opened(subject) as backend:
        await backend.invoke(bystander, 3 * 3600.0)
        assert ticks == {"once": [], "each": []}
    async with opened(subject, once, each) as backend:
        await backend.invoke(bystander, 60.0)
    assert sorted(moment.timestamp() // 3600 - began // 3600 for moment in ticks["each"]) == [0, 1, 2]
    assert ticks["once"] == [max(ticks["each"])]


@clause
async def test_c30_cron_comes_once_although_it_crashes(subject: Subject) -> None:
    if subject.unit < 60:
        raise RefusedError("a cron comes once a minute at most, and this subject's time is real")
    runs: set[str] = set()

    @function("hourly", cron="0 * * * *")
    async def hourly(ctx: Context[None]) -> None:
        runs.add(ctx.run_id)

    for point in ("before_first", "before_result", "after_result"):
        async with opened(subject, hourly) as backend:
            backend.probe = _kill_at("", point)
            with suppress(Kill):
                await backend.invoke(bystander, 1800.0)
    async with opened(subject, hourly) as backend:
        await backend.invoke(bystander, 7200.0)
        found = await backend.runs(function=hourly)
        assert {run.id for run in found} == runs, "no time has two runs"
        hours = {math.floor(run.view.created_at / 3600) for run in found}
        assert len(hours) == len(found) >= 2


# -- keys


@clause
async def test_c30_a_key_that_is_absent_groups_no_strangers(subject: Subject) -> None:
    ended: list[str] = []

    async def end(name: str) -> None:
        ended.append(name)

    @function("grouped", triggers=[EVENT], singleton=Singleton("user.id", mode="cancel"), retries=0)
    async def grouped(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.sleep("nap", subject.unit / 2)
        await ctx.step.run("end", end, ctx.input["name"])

    async with opened(subject, grouped) as backend:
        try:
            await backend.start(grouped, {"name": "nobody"})
        except MissingKeyError as error:
            assert (error.function, error.option, error.key) == ("grouped", "singleton", "user.id")
        else:
            raise AssertionError("a start without the key must be refused")
        known = await backend.start(grouped, {"user": {"id": 1}, "name": "known"})
        await send(backend, {"user": {}, "name": "stranger"}, {"user": {"id": None}, "name": "other stranger"})
        await known.result()
        await backend.invoke(bystander, subject.unit)
        runs = [await run.refresh() for run in await backend.runs(function=grouped)]
        failed = [run.view.error or {} for run in runs if run.status is RunStatus.FAILED]
        assert [error.get("type") for error in failed] == ["MissingKeyError"] * 2
    assert ended == ["known"]


@clause
async def test_c30_a_key_that_is_a_masked_secret_groups_no_strangers(subject: Subject) -> None:
    """All secrets are masked by one text."""
    secrets = ["the secret of ann", "the secret of bob"]
    begun: set[str] = set()

    @function("masked", triggers=[EVENT], singleton=Singleton("user.token", mode="cancel"), retries=0)
    async def masked(ctx: Context[dict[str, Any]]) -> None:
        begun.add(ctx.input["name"])

    async with opened(subject, masked, secrets=secrets) as backend:
        for number, secret in enumerate(secrets):
            try:
                await backend.start(masked, {"user": {"token": secret}, "name": f"started {number}"})
            except MissingKeyError as error:
                assert (error.function, error.option, error.key) == ("masked", "singleton", "user.token")
            else:
                raise AssertionError("a start whose key is a secret must be refused")
        await send(backend, *({"user": {"token": secret}, "name": "sent"} for secret in secrets))
        known = await backend.start(masked, {"user": {"token": "none"}, "name": "known"})
        await known.result()
        await backend.invoke(bystander, subject.unit)
        runs = list(await backend.runs(function=masked))
        for run in runs:
            await subject.until_ended(run)
        # Where a server looks at the key first, the second of the two cancels the first, which was to fail as well.
        ended = {run.status: (run.view.error or {}).get("type") for run in runs if run.id != known.id}
    assert ended.pop(RunStatus.FAILED) == "MissingKeyError"
    assert ended.keys() <= {RunStatus.CANCELLED}
    assert begun == {"known"}


def _period(subject: Subject) -> float:
    """A period for a rule, in the whole seconds that some engines count in."""
    return float(math.ceil(subject.unit))


def _kill_at(key: str, name: str = "before_body") -> Probe:
    where = at(name, key)

    def probe(point: Point) -> None:
        if point.function != bystander.id and where(point):  # true once
            raise Kill

    return probe


async def _until(subject: Subject, backend: Backend, condition: Callable[[], bool]) -> None:
    """Let time pass until something has happened. A test's patience ends it."""
    while not condition():
        await backend.invoke(bystander, subject.unit / 4)
