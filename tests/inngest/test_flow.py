"""Flow control: handed to Inngest as it is, and simulated by the harness as the server was seen to apply it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from durably.backends.inngest import InngestBackend
from durably.core import (
    Agent,
    Context,
    Event,
    Function,
    InvokeError,
    MemorySessions,
    RunStatus,
    Singleton,
    function,
)
from durably.core.errors import UnsupportedFeatureError
from durably.core.flow import Batch, Concurrency, Cron, CronTick, Debounce, Priority, RateLimit, Throttle
from durably.core.session_options import OnMessage
from durably.testing.inngest import InngestEngine
from durably.testing.models.scripted import ScriptedModel
from tests.inngest.conftest import OpenInngest

pytestmark = pytest.mark.asyncio


def seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


class Started:
    """What a function was started with, and when, in seconds from the first event."""

    def __init__(self, engine: InngestEngine, **options: Any) -> None:
        self.engine = engine
        self.began = engine.now()
        self.seen: list[tuple[float, Any]] = []

        @function("started", triggers=["flow/x"], **options)
        async def started(ctx: Context[Any]) -> None:
            self.seen.append((round(engine.now() - self.began, 1), ctx.input))

        self.function: Function[Any, Any] = started

    async def send(self, backend: InngestBackend, *events: tuple[float, Any]) -> list[tuple[float, Any]]:
        """Send data at moments, let time pass until nothing is left, and see."""
        for moment, data in events:
            await self.until(moment)
            await backend.send(Event("flow/x", data))
        await self.until(1000.0)
        return self.seen

    async def until(self, moment: float) -> None:
        if self.engine.now() < self.began + moment:
            self.engine.timers.at(self.began + moment, lambda: None)
        while self.engine.now() < self.began + moment:
            await self.engine.rest()
            self.engine.advance()
        await self.engine.rest()


async def test_debounce_starts_one_run_with_the_last_event(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    program = Started(engine, debounce=Debounce(period=seconds(2), key="user"))
    async with open_inngest(program.function) as backend:
        events = [(n * 0.7, {"user": 1, "n": n}) for n in range(4)]
        seen = await program.send(backend, *events, (2.1, {"user": 2}))
    assert seen == [(4.1, {"user": 1, "n": 3}), (4.1, {"user": 2})]


async def test_debounce_gives_up_waiting_at_its_timeout(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    program = Started(engine, debounce=Debounce(period=seconds(3), timeout=seconds(5)))
    async with open_inngest(program.function) as backend:
        seen = await program.send(backend, *[(n * 2.0, n) for n in range(4)])
    assert seen == [(5.0, 2), (9.0, 3)]


async def test_throttle_lets_a_burst_go_and_the_rest_wait(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    program = Started(engine, throttle=Throttle(limit=1, period=seconds(3)))
    async with open_inngest(program.function) as backend:
        seen = await program.send(backend, *[(0.0, n) for n in range(4)])
    assert [moment for moment, _ in seen] == [0.0, 0.0, 3.0, 6.0], "a burst of one beside the limit of one"
    assert sorted(data for _, data in seen) == [0, 1, 2, 3]


async def test_a_rate_limit_drops_what_is_too_much(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    program = Started(engine, rate_limit=RateLimit(limit=1, period=seconds(4), key="user"))
    async with open_inngest(program.function) as backend:
        events = [(moment, {"user": 1, "at": moment}) for moment in (0.0, 1.0, 3.9, 5.0)]
        seen = await program.send(backend, *events, (5.5, {"user": 2}))
    assert [moment for moment, _ in seen] == [0.0, 5.0, 5.5]
    assert len(engine.runs) == 3, "an event that was dropped has no run"


async def test_a_batch_starts_when_it_is_full_or_its_time_is_up(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    program = Started(engine, batch=Batch(max_size=3, timeout=seconds(3)))
    async with open_inngest(program.function) as backend:
        seen = await program.send(backend, *[(n * 0.1, {"n": n}) for n in range(4)])
    assert [(moment, Counter(each["n"] for each in data)) for moment, data in seen] == [
        (0.2, Counter([0, 1, 2])),
        (3.3, Counter([3])),
    ]
    assert {len(runs) for event, runs in engine.events.values() if event["name"] == "flow/x"} == {1}


async def test_concurrency_limits_calls_and_not_runs(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    sleeping: set[str] = set()

    async def body(user: str) -> None:
        running[user] += 1
        most[user] = max(most[user], running[user])
        for _ in range(20):
            await asyncio.sleep(0)
        running[user] -= 1

    @function("limited", triggers=["flow/x"], concurrency=Concurrency(limit=2, key="user"))
    async def limited(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.run("before", body, ctx.input["user"])
        sleeping.add(ctx.run_id)
        await ctx.step.sleep("nap", 60)
        await ctx.step.run("after", body, ctx.input["user"])

    async with open_inngest(limited) as backend:
        for n in range(10):
            await backend.send(Event("flow/x", {"user": "ab"[n % 2]}))
        await engine.rest()
        assert len(sleeping) == 10, "a run that sleeps holds no one up"
        while engine.advance():
            await engine.rest()
    assert most == {"a": 2, "b": 2}
    assert {run.status for run in engine.runs.values()} == {"COMPLETED"}


async def test_a_cron_comes_when_it_is_told_to(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    seen: list[Any] = []

    @function("nightly", cron="0 9 * * *")
    async def nightly(ctx: Context[Any]) -> None:
        seen.append((ctx.event.name, ctx.input["cron"]))

    async with open_inngest(nightly):
        engine.fire("app-nightly")
        await engine.rest()
    assert seen == [("durably/cron.fired", "0 9 * * *")]


async def test_what_is_not_simulated_is_refused(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    program = Started(engine, priority=Priority("60"))
    with pytest.raises(ConnectionError, match="priority is not simulated"):
        async with open_inngest(program.function):
            pass
    lenient = InngestEngine(ignored=["priority"])
    async with InngestBackend(lenient.client(), [program.function], serve=lenient.serve, now=lenient.now):
        assert "app-started" in lenient.functions


async def test_flow_control_is_inngests_own() -> None:
    second = seconds(1)

    @function(
        "controlled",
        triggers=["x/y"],
        concurrency=Concurrency(limit=2, key="user.id"),
        throttle=Throttle(limit=3, period=second, key="user.id"),
        rate_limit=RateLimit(limit=4, period=second),
        priority=Priority("event.data.urgent ? 60 : 0"),
        idempotency="order",
        cron="0 9 * * *",
    )
    async def controlled(ctx: Context[Any]) -> None: ...

    @function("bounced", triggers=["x/y"], debounce=Debounce(period=2 * second))
    async def bounced(ctx: Context[Any]) -> None: ...

    @function("batched", triggers=["x/y"], batch=Batch(max_size=5, timeout=second))
    async def batched(ctx: Context[list[Any]]) -> None: ...

    engine = InngestEngine(ignored=["priority"])
    async with InngestBackend(engine.client(), [controlled, bounced, batched], serve=engine.serve, now=engine.now):
        found = engine.functions["app-controlled"]
        assert found["concurrency"] == [{"limit": 2, "key": "event.data.user.id", "scope": "fn"}]
        assert found["throttle"]["period"] == "1s"
        assert found["rateLimit"]["limit"] == 4
        assert found["priority"] == {"run": "event.data.urgent ? 60 : 0"}
        assert found["idempotency"] == "event.data.order"
        assert {"cron": "0 9 * * *"} in found["triggers"]
        assert engine.functions["app-bounced"]["debounce"]["period"] == "2s"
        assert engine.functions["app-batched"]["batchEvents"]["maxSize"] == 5


async def test_an_event_without_the_key_fails_its_run(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    program = Started(engine, singleton=Singleton("user.id", mode="cancel"))
    async with open_inngest(program.function) as backend:
        assert await program.send(backend, (0.0, {"user": {}})) == []
        (run,) = await backend.runs()
        assert (await run.ended()).status is RunStatus.FAILED
        with pytest.raises(InvokeError, match=r"nothing at 'user.id' that its singleton= could go by"):
            await run.result()


async def test_periods_are_whole_seconds(engine: InngestEngine) -> None:
    for options in (
        {"debounce": Debounce(period=0.5)},
        {"debounce": Debounce(period=2, timeout="2.5s")},
        {"throttle": Throttle(limit=1, period="1.5s")},
        {"rate_limit": RateLimit(limit=1, period=timedelta(seconds=0.25))},
        {"batch": Batch(max_size=2, timeout=1.25)},
    ):
        with pytest.raises(UnsupportedFeatureError, match="Inngest counts in whole seconds"):
            InngestBackend(engine.client(), [Started(engine, **options).function])


async def test_what_inngest_has_not_is_refused(engine: InngestEngine) -> None:
    for options, reason in (
        ({"singleton": Singleton("user", mode="queue")}, "its singleton cannot wait"),
        ({"cron": Cron("0 9 * * *", missed="each")}, "says nothing of times that it missed"),
    ):
        with pytest.raises(UnsupportedFeatureError, match=reason):
            InngestBackend(engine.client(), [Started(engine, **options).function])


async def test_an_agent_whose_messages_wait_is_refused(engine: InngestEngine) -> None:
    modes: tuple[OnMessage, ...] = ("queue", "steer")
    for mode in modes:
        options: dict[str, Any] = {"sessions": MemorySessions(), "on_message": mode}
        agent = Agent("waiting", model=ScriptedModel("done"), instructions="", **options)
        with pytest.raises(UnsupportedFeatureError, match="its singleton cannot wait"):
            InngestBackend(engine.client(), [agent])


async def test_a_path_is_a_priority_too(engine: InngestEngine) -> None:
    program = Started(engine, priority=Priority("order.urgency"))
    lenient = InngestEngine(ignored=["priority"])
    async with InngestBackend(lenient.client(), [program.function], serve=lenient.serve, now=lenient.now):
        assert lenient.functions["app-started"]["priority"] == {"run": "event.data.order.urgency"}


async def test_a_cron_has_a_zone_and_its_input(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    seen: list[Any] = []

    @function("nightly", cron=Cron("0 9 * * *", timezone="Europe/Berlin"))
    async def nightly(ctx: Context[CronTick]) -> None:
        seen.append(ctx.input.cron)

    @function("quiet", cron="TZ=America/New_York 0 9 * * *")
    async def quiet(ctx: Context[None]) -> None:
        seen.append(ctx.input)

    async with open_inngest(nightly, quiet):
        crons = [each["cron"] for made in engine.functions.values() for each in made["triggers"] if "cron" in each]
        assert crons == ["TZ=Europe/Berlin 0 9 * * *", "TZ=America/New_York 0 9 * * *"]
        engine.fire("app-nightly")
        engine.fire("app-quiet")
        await engine.rest()
    assert seen == ["0 9 * * *", None]
