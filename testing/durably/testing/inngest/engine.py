"""The engine: functions, events, runs, and the calls it makes to the app."""

from __future__ import annotations

import asyncio
import contextvars
import json
import math
import random
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import inngest

from durably.testing.inngest.api import EngineApi
from durably.testing.inngest.apps import App, Apps
from durably.testing.inngest.calls import Call, Lost, Reply
from durably.testing.inngest.clock import Timers
from durably.testing.inngest.expressions import evaluate
from durably.testing.inngest.faults import Faults
from durably.testing.inngest.flow import Arrival, FlowControl, check_simulated
from durably.testing.inngest.numbers import given_back
from durably.testing.inngest.rest import iso
from durably.testing.inngest.runs import BACKOFF, EngineRun
from durably.testing.inngest.ulids import new_ulid, seeded_ulid

__all__ = ["InngestEngine"]

ORIGIN = "http://engine.local"


class InngestEngine:
    """Plays the Inngest server, in virtual time.

    Time moves when a client looks at a run that is live while nothing can be done, as a program does that waits for a
    result; or by :meth:`advance`.

    Args:
        seed: Fixes the order of parallel calls and the jitter.
        hop: Seconds from an answer to the next call.
        backoff: Seconds before every further attempt; left out, what the server was seen to wait, about.
        start: The time at first, in seconds since 1970; left out, now.
        ignored: Options of functions that may be there and have no effect; others that are not simulated are refused.
        signing_key: Behave as in production: sign every call, want the key as a bearer token, answer no GraphQL.

    Attributes:
        runs: Every run by its id, oldest first.
        functions: What apps registered, by full id.
        calls: Every call that was sent, in order.
        faults: What is to go wrong.
        longest_jump: Seconds that the time moves on at most at once; what is due later waits.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        hop: float = 0.0,
        backoff: float | None = None,
        start: float | None = None,
        ignored: Collection[str] = (),
        signing_key: str | None = None,
    ) -> None:
        self.signing_key = signing_key
        self.timers = Timers(time.time() if start is None else start)
        self.hop = hop
        self.random = random.Random(seed)
        self.runs: dict[str, EngineRun] = {}
        self.functions: dict[str, dict[str, Any]] = {}
        self.events: dict[str, tuple[dict[str, Any], list[str]]] = {}
        self.calls: list[Call] = []
        self.faults = Faults()
        self.longest_jump = math.inf
        self.api = EngineApi(self)
        self._backoff = backoff
        self._ignored = frozenset(ignored)
        self._flow = FlowControl(self.timers, self.random, self._begin)
        self._apps = Apps()
        self._seen: set[tuple[str, str]] = set()
        self._waits: list[tuple[EngineRun, str, str, str | None]] = []
        self._callers: dict[str, tuple[EngineRun, str]] = {}
        self._tasks: dict[asyncio.Task[None], Call] = {}
        self._lost: set[asyncio.Task[None]] = set()
        self._turning = False

    # -- for tests

    def now(self) -> float:
        """The time, in seconds since 1970."""
        return self.timers.time

    def client(self, app_id: str = "app", **options: Any) -> inngest.Inngest:
        """An SDK client whose every request comes to this engine."""
        if self.signing_key is not None:
            options = {"signing_key": self.signing_key, "event_key": "key", **options}
        client = inngest.Inngest(
            app_id=app_id,
            api_base_url=ORIGIN,
            event_api_base_url=ORIGIN,
            is_production=self.signing_key is not None,
            **options,
        )
        wire = client._http_client._http_client
        wire._transport = httpx.ASGITransport(self.api)
        wire._mounts = {}
        return client

    def serve(self, app: App) -> AbstractAsyncContextManager[str]:
        """Make an ASGI app reachable for as long as the block lasts; gives its address."""
        return self._apps.serve(app)

    async def close(self) -> None:
        """Let go of connections to apps that have ports of their own."""
        await self._apps.close()

    @property
    def idle(self) -> bool:
        """Whether no call is under way and nothing is to be done right now."""
        due = self.timers.due()
        return not self._tasks and (due is None or due > self.timers.time)

    def advance(self) -> bool:
        """If nothing is under way, move the time to what comes next; ``False`` if nothing will."""
        due = self.timers.due()
        near = due is not None and due - self.timers.time <= self.longest_jump
        moved = self.idle and near and self.timers.step()
        self.turn()
        return moved

    async def rest(self) -> None:
        """Wait until all is done that can be done without time passing."""
        while not self.idle:  # noqa: ASYNC110  # every turn of the loop may be the one that gets there
            await asyncio.sleep(0)

    def forget_calls(self) -> None:
        """Give up on all calls that are under way, as after a broken connection, and make them again at once."""
        for task, call in list(self._tasks.items()):
            self._lost.add(task)
            del self._tasks[task]
            self.runs[call.run_id].later(0, lambda call=call: self.runs[call.run_id]._again(call))  # type: ignore[misc]
        self.turn()

    def turn(self) -> None:
        """Do all that is due now, soon."""
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn, context=contextvars.Context())

    def _turn(self) -> None:
        self._turning = False
        while (due := self.timers.due()) is not None and due <= self.timers.time:
            self.timers.step()

    # -- functions and events

    def register(self, functions: list[dict[str, Any]]) -> None:
        """Take over what an app serves. Raises ValueError for an option that is not simulated."""
        for each in functions:
            check_simulated(each, self._ignored)
        self.functions.update({each["id"]: each for each in functions})

    def receive(self, event: dict[str, Any], seed: str | None, index: int) -> str:
        """Take an event; gives its internal id, which is never the one its sender gave."""
        name, data = event.get("name"), event.get("data")
        if not name or name.startswith("inngest/"):
            raise ValueError("event name is empty or reserved")
        if not isinstance(data if data is not None else {}, dict):
            raise ValueError("event data must be an object")  # noqa: TRY004  # one error, one answer
        known = seeded_ulid(seed, index)
        return self._publish({**event, "data": data or {}}, known or self._new_ulid())

    def _new_ulid(self) -> str:
        return new_ulid(self.timers.time, self.random)

    def _publish(self, event: dict[str, Any], ulid: str, invoked: tuple[EngineRun, str, str] | None = None) -> str:
        event = {"user": {}, **event, "id": event.get("id") or ulid, "data": given_back(event["data"])}
        due = (event.get("ts") or 0) / 1000
        # What is stamped here is due now, also where the stamp is rounded up.
        event["ts"] = event.get("ts") or round(self.timers.time * 1000)
        self.events.setdefault(ulid, (event, []))
        if due < time.time():  # the SDK stamps events with the real time, which may be ahead of this engine's
            due = 0.0
        self.timers.at(max(self.timers.time, due), lambda: self._trigger(event, ulid, invoked))
        self._wake(event)
        self.turn()
        return ulid

    def _trigger(self, event: dict[str, Any], ulid: str, invoked: tuple[EngineRun, str, str] | None) -> None:
        arrival = Arrival(event, ulid)
        if invoked is not None:
            caller, step, function_id = invoked
            child = self._create(self.functions[function_id], [arrival])
            if child is not None:
                self._callers[child.id] = (caller, step)
            return
        for function in list(self.functions.values()):
            if any(_fits(trigger, event) for trigger in function["triggers"]) and self._is_new(function, event):
                self._flow.arrive(function, arrival)

    def fire(self, function_id: str) -> None:
        """Let the cron of a function come round now; it never does by itself.

        Args:
            function_id: Its full id, ``app-function``.
        """
        function = self.functions[function_id]
        (cron,) = (trigger["cron"] for trigger in function["triggers"] if "cron" in trigger)
        at = iso(self.timers.time)
        data = {"cron": cron, "fireAt": at, "scheduledAt": at}
        event = {"user": {}, "name": "inngest/scheduled.timer", "data": data, "id": at, "ts": round(self.now() * 1000)}
        ulid = self._new_ulid()
        self.events[ulid] = (event, [])
        self._begin(function, [Arrival(event, ulid)])
        self.turn()

    def _is_new(self, function: dict[str, Any], event: dict[str, Any]) -> bool:
        """Whether this event has not started the function before. The sender is not told."""
        idempotency = function.get("idempotency")
        token = json.dumps(evaluate(idempotency, {"event": event})) if idempotency else event["id"]
        known = (function["id"], token) in self._seen
        self._seen.add((function["id"], token))
        return not known

    def _begin(self, function: dict[str, Any], arrivals: list[Arrival]) -> None:
        self._create(function, arrivals)

    def _create(self, function: dict[str, Any], arrivals: list[Arrival]) -> EngineRun | None:
        attempts = function["steps"]["step"].get("retries", {}).get("attempts", 4) + 1
        events = [arrival.event for arrival in arrivals]
        run = EngineRun(self, id=self._new_ulid(), function=function["id"], events=events, max_attempts=attempts)
        if self._skipped(function, run):
            run.status = "SKIPPED"
        self.runs[run.id] = run
        for arrival in arrivals:
            self.events[arrival.ulid][1].append(run.id)
        if run.live:
            run.plain()
        return run

    def _skipped(self, function: dict[str, Any], run: EngineRun) -> bool:
        """Apply the rule of one live run a key; whether the new one gives way."""
        rule = function.get("singleton")
        if rule is None:
            return False
        key = _singleton_key(rule, run)
        for other in list(self.runs.values()):
            if other.live and other.function == run.function and _singleton_key(rule, other) == key:
                if rule["mode"] == "skip":
                    return True
                other.end("CANCELLED")
        return False

    def _wake(self, event: dict[str, Any]) -> None:
        """Hand an event to all that wait for it now; nobody else gets it later."""
        for wait in list(self._waits):
            run, step, name, expression = wait
            if not run.live or step not in run.open:
                self._waits.remove(wait)
            elif name == event["name"] and _matches(expression, run, event):
                self._waits.remove(wait)
                run.later(0, lambda run=run, step=step: run.answer(step, event))  # type: ignore[misc]
        for run in [run for run in self.runs.values() if run.live]:
            for rule in self.functions[run.function].get("cancel") or ():
                if rule["event"] == event["name"] and _matches(rule.get("if"), run, event):
                    run.end("CANCELLED")

    # -- what runs ask for

    def wait(self, run: EngineRun, step: str, name: str, expression: str | None) -> None:
        """Let a step wait for an event, from now on."""
        self._waits.append((run, step, name, expression))

    def invoke(self, run: EngineRun, step: str, options: dict[str, Any]) -> str | None:
        """Start a child; what is wrong, or ``None``."""
        function = options["function_id"]
        if function not in self.functions:
            return f"could not find function with ID: {function}"
        own = {"correlation_id": f"{run.id}.{step}", "fn_id": function, "source_fn_v": 1}
        data = {**(options["payload"]["data"] or {}), "_inngest": own}
        self._publish({"name": "inngest/function.invoked", "data": data}, self._new_ulid(), (run, step, function))
        return None

    def backoff(self, attempt: int) -> float:
        """Seconds before the next attempt."""
        if self._backoff is not None:
            return self._backoff
        return BACKOFF[min(attempt, len(BACKOFF) - 1)] * self.random.uniform(0.9, 1.1)

    def ended(self, run: EngineRun) -> None:
        """Tell whoever wants to know of a run's end."""
        caller = self._callers.pop(run.id, None)
        if caller is not None:
            parent, step = caller
            parent.answer(step, {"data": run.output} if run.status == "COMPLETED" else _child_error(run))
        if run.status in ("FAILED", "CANCELLED"):
            word = run.status.lower()
            data = {"function_id": run.function, "run_id": run.id, "event": run.events[0], "events": run.events}
            data["_inngest"] = {"status": word.capitalize()}
            if run.status == "FAILED":
                data["error"] = run.output["error"]
            self._publish({"name": f"inngest/function.{word}", "data": data, "id": run.id}, self._new_ulid())
        self.turn()

    # -- calls

    def post(self, run: EngineRun, call: Call) -> None:
        """Call the app as soon as flow control allows it."""
        self._flow.enter(run, self.functions[run.function], lambda: self._post(run, call))

    def _post(self, run: EngineRun, call: Call) -> None:
        """Call the app, in a task of its own."""
        loop = asyncio.get_running_loop()
        copies = 2 if self.faults.wants("duplicate", call) else 1
        for copy in range(copies):
            task = loop.create_task(self._exchange(run, call), context=contextvars.Context())
            self._tasks[task] = call
            task.add_done_callback(lambda task, last=copy == 0: self._exchanged(task, run, last))  # type: ignore[misc]

    def _exchanged(self, task: asyncio.Task[None], run: EngineRun, leaves: bool) -> None:
        self._tasks.pop(task, None)
        if leaves:
            self._flow.leave(run, self.functions[run.function])
        self.turn()

    async def _exchange(self, run: EngineRun, call: Call) -> None:
        for _ in range(self.random.randrange(3) if call.planning else 0):
            await asyncio.sleep(0)  # parallel calls go out in any order
        sent = run.before(call) if self.faults.wants("stale", call) else call
        try:
            reply = await self._send(sent)
        except (Lost, asyncio.CancelledError):  # a process that dies takes its connections along
            if asyncio.current_task() not in self._lost:
                message = "Unable to reach SDK URL"
                run.failed(call, {"error": message, "name": "Error", "message": message})
            return
        if asyncio.current_task() not in self._lost:
            run.accept(call, reply)
        if self.faults.wants("repeat", call):
            await self._send(sent)

    async def _send(self, call: Call) -> Reply:
        url = self.functions[call.function]["steps"]["step"]["runtime"]["url"]
        if not self._apps.reaches(url) or self.faults.wants("refuse", call):
            raise Lost("connection refused")
        self.calls.append(call)
        reply = await self._apps.post(url, call, self.signing_key)
        if self.faults.wants("drop_reply", call):
            raise Lost("the connection broke")
        return reply


def _fits(trigger: dict[str, Any], event: dict[str, Any]) -> bool:
    if trigger.get("event") != event["name"]:
        return False
    return not trigger.get("expression") or bool(evaluate(trigger["expression"], {"event": event}))


def _matches(expression: str | None, run: EngineRun, event: dict[str, Any]) -> bool:
    return not expression or bool(evaluate(expression, {"event": run.events[0], "async": event}))


def _singleton_key(rule: dict[str, Any], run: EngineRun) -> str:
    return json.dumps(evaluate(rule["key"], {"event": run.events[0]})) if rule.get("key") else ""


def _child_error(run: EngineRun) -> dict[str, Any]:
    if run.status == "FAILED":
        error: dict[str, Any] = run.output["error"]
        return {"error": error}
    return {"error": {"error": "function cancelled", "name": "Error", "message": f"the run was {run.status.lower()}"}}
