"""One run as the engine sees it: its memos, what is open, and what follows from each answer of the app."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, Protocol

from durably.testing.inngest.calls import PLAIN, Call, Reply
from durably.testing.inngest.clock import Timer, Timers
from durably.testing.inngest.expressions import InvalidExpressionError, evaluate
from durably.testing.inngest.numbers import given_back

__all__ = ["BACKOFF", "EngineRun", "RunEngine", "Status", "seconds_of"]

Status = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"]

BACKOFF = (20.0, 40.0, 85.0, 133.0)
"""Seconds before the second attempt, the third, ...; the server adds jitter."""
TICK = 0.125
"""Seconds from an answer to the next call, about: how often the server looks at its queue."""
STEP_LIMIT = 4 * 2**20
STATE_LIMIT = 32 * 2**20
API_LIMIT = 4 * 2**20
MOST_STEPS = 1000
"""A run that has so many settled steps is not called again. See ``checkStepLimit`` in the server's executor."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(text: str) -> int:
    """The seconds of a duration such as ``"90s"``."""
    return int(text[:-1]) * _UNITS[text[-1]]


class RunEngine(Protocol):
    """What a run needs of the engine."""

    timers: Timers
    hop: float

    def post(self, run: EngineRun, call: Call) -> None: ...
    def backoff(self, attempt: int) -> float: ...
    def wait(self, run: EngineRun, step: str, name: str, expression: str | None) -> None: ...
    def invoke(self, run: EngineRun, step: str, options: dict[str, Any]) -> str | None: ...
    def ended(self, run: EngineRun) -> None: ...


class EngineRun:
    """A run.

    Args:
        host: The engine.
        id: Its ULID.
        function: The full id of its function.
        events: What started it.
        max_attempts: How often one call may be made.

    Attributes:
        status: Where it stands.
        output: Its result, or ``{"error": ...}``.
        steps: The memos by the step's hash.
        stack: The hashes, in the order the steps were settled.
        trace: ``(hash, name, op, memo)`` in that order.
        settled_at: When each was, in seconds since 1970.
        open: What is under way: the hash to the operation.
        started_at: Seconds since 1970.
        ended_at: Seconds since 1970; 0 while it is live.
    """

    def __init__(
        self,
        host: RunEngine,
        *,
        id: str,
        function: str,
        events: list[dict[str, Any]],
        max_attempts: int,
        version: int = -1,
    ) -> None:
        self._host = host
        self.id = id
        self.function = function
        self.events = events
        self.max_attempts = max_attempts
        self.status: Status = "RUNNING"
        self.output: Any = None
        self.steps: dict[str, Any] = {}
        self.stack: list[str] = []
        self.trace: list[tuple[str, str, str, Any]] = []
        self.settled_at: dict[str, float] = {}
        self.open: dict[str, str] = {}
        self.started_at = host.timers.time
        self.ended_at = 0.0
        self._version = version
        self._timers: list[Timer] = []
        self._waiting: dict[str, dict[str, Any]] = {}
        self._before: tuple[dict[str, Any], list[str]] = ({}, [])

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.status == "RUNNING"

    def call(self, **changes: Any) -> Call:
        """A call with the state as it is now."""
        return Call(
            run_id=self.id,
            function=self.function,
            max_attempts=self.max_attempts,
            version=self._version,
            events=self.events,
            steps=dict(self.steps),
            stack=list(self.stack),
            current=len(self.stack),
            use_api=_size(self.steps) > API_LIMIT,
        ).again(**changes)

    def before(self, call: Call) -> Call:
        """The call as it would have been one hop before."""
        steps, stack = self._before
        return call.again(steps=steps, stack=stack, current=len(stack))

    def plain(self) -> None:
        """Call the app for whatever comes next."""
        self.later(self._host.hop, lambda: self._post(self.call()))

    def _post(self, call: Call) -> None:
        if len(self.steps) < MOST_STEPS:
            self._host.post(self, call)
            return
        name = "InngestErrFunctionOverflowed"
        text = f"The function run exceeded the step limit of {MOST_STEPS} steps."
        self.end("FAILED", {"error": {"error": "function has too many steps", "name": name, "message": text}})

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """Do something after a while, unless the run has ended by then."""
        timers = self._host.timers
        self._timers.append(timers.at(timers.time + delay, lambda: act() if self.live else None))

    # -- answers

    def accept(self, call: Call, reply: Reply) -> None:
        """Take the app's answer. Nothing once the run has ended, or the step was settled by another answer."""
        if not self.live or (call.step != PLAIN and call.step in self.steps):
            return
        if not reply.handled or not reply.is_json or reply.status not in (200, 206):
            self._refused(call, reply)
            return
        self._version = 2
        if reply.status == 206:
            self._operations(call, reply)
            return
        self.open.pop(call.step, None)  # the code that was to run this step came to its end without it
        if not self.open:  # a run does not end while a planned step is open
            self.end("COMPLETED", reply.body)

    def _refused(self, call: Call, reply: Reply) -> None:
        if not reply.handled:
            name = "Server returned a fatal error"
            error = {
                "message": f"Your server returned HTTP {reply.status} before the SDK responded.",
                "name": name,
                "error": name,
            }
        else:
            body = reply.body if isinstance(reply.body, dict) else {"message": str(reply.body), "name": "Error"}
            kind = body.get("name", "Error") if reply.no_retry else f"invalid status code: {reply.status}"
            error = {"error": kind, **_kept(body)}
        self.failed(call, error, reply.no_retry, _retry_after(reply, self._host.timers.time))

    def failed(self, call: Call, error: dict[str, Any], no_retry: bool = False, delay: float | None = None) -> None:
        """A call came to nothing: make it again, or fail the run."""
        if not self.live or (call.step != PLAIN and call.step in self.steps):
            return
        if no_retry or call.attempt + 1 >= call.max_attempts:
            self.end("FAILED", {"error": error})
            return
        self.later(self._host.backoff(call.attempt) if delay is None else delay, lambda: self._again(call))

    def _again(self, call: Call) -> None:
        # The memos of by now, but `current` of when the call was planned: as recorded on the server.
        current = call.current if call.step != PLAIN else len(self.stack)
        again = self.call(attempt=call.attempt + 1, step=call.step, planning=call.planning, current=current)
        self._post(again)

    # -- operations

    def _operations(self, call: Call, reply: Reply) -> None:
        operations = reply.body
        # Waits first, so that what the others of this plan send is heard.
        for operation in sorted(operations, key=lambda each: each["op"] != "WaitForEvent"):
            if not self.live:
                return
            self._operate(call, operation, len(operations) > 1, reply)

    def _operate(self, call: Call, operation: dict[str, Any], several: bool, reply: Reply) -> None:
        step, kind, error = operation["id"], operation["op"], operation.get("error") or {}
        if step in self.steps:
            if call.step == PLAIN and not self.open and not several:
                self.plain()  # a step that is settled already: the app looked at an older state
            return
        match kind:
            case "StepRun":
                self.settle(operation, {"data": operation["data"]})
            case "StepFailed" | "StepError" if kind == "StepFailed" or reply.no_retry:
                self.settle(operation, {"error": {**_kept(error), **({"noRetry": True} if reply.no_retry else {})}})
            case "StepError":
                self.failed(call, error, False, _retry_after(reply, self._host.timers.time))
            case "StepPlanned" | "Sleep" | "WaitForEvent" | "InvokeFunction":
                if step not in self.open:  # in race mode the same plan comes more than once
                    self.open[step] = kind
                    getattr(self, f"_begin_{kind}")(operation, several)
            case _:
                raise AssertionError(f"the app answered with an operation that this engine does not know: {kind}")

    def _begin_StepPlanned(self, operation: dict[str, Any], several: bool) -> None:  # noqa: N802  # the wire's name
        call = self.call(step=operation["id"], planning=several)
        self.later(self._host.hop, lambda: self._post(call))

    def _begin_Sleep(self, operation: dict[str, Any], several: bool) -> None:  # noqa: N802
        until = datetime.fromisoformat(operation["name"]).timestamp()
        # The server rounds what is left to whole seconds: a sleep may end half a second early.
        left = max(float(round(until - self._host.timers.time)), TICK - self._host.hop)
        self.later(left, lambda: self.settle(operation, None))

    def _begin_WaitForEvent(self, operation: dict[str, Any], several: bool) -> None:  # noqa: N802
        options, names = operation["opts"], {"event": self.events[0], "async": {"data": {}}}
        try:
            if options.get("if"):
                evaluate(options["if"], names)
        except InvalidExpressionError as error:
            self.end("FAILED", {"error": {"error": "InvalidExpression", "name": "Error", "message": str(error)}})
            return
        self._remember(operation)
        self._host.wait(self, operation["id"], operation["name"], options.get("if"))
        self.later(seconds_of(options["timeout"]) + 0.1, lambda: self.settle(operation, None))

    def _begin_InvokeFunction(self, operation: dict[str, Any], several: bool) -> None:  # noqa: N802
        options = operation["opts"]
        self._remember(operation)
        problem = self._host.invoke(self, operation["id"], options)
        if problem is not None:
            error = {"name": "Error", "message": problem}
            self.later(0.6, lambda: self.settle(operation, {"error": error}))
        elif options.get("timeout"):
            error = {
                "name": "InngestInvokeTimeoutError",
                "message": "Timed out waiting for invoked function to complete",
            }
            self.later(seconds_of(options["timeout"]) + 0.1, lambda: self.settle(operation, {"error": error}))

    def _remember(self, operation: dict[str, Any]) -> None:
        self._waiting[operation["id"]] = operation

    def answer(self, step: str, memo: Any) -> None:
        """What a step waited for has come: an event, or the end of a child."""
        if self.live and step in self.open:
            self.settle(self._waiting[step], memo)

    def settle(self, operation: dict[str, Any], memo: Any) -> None:
        """Keep a memo, and go on if nothing else is open (in race mode at once)."""
        step = operation["id"]
        if not self.live or step in self.steps:
            return
        if _size(memo) > STEP_LIMIT:
            text = f"error validating generator opcode {step}: step output size is greater than the limit"
            self.end("FAILED", {"error": {"error": text, "name": "Error", "message": text}})
            return
        self._before = (dict(self.steps), list(self.stack))
        self.steps[step] = given_back(memo)
        self.stack.append(step)
        self.settled_at[step] = self._host.timers.time
        self.trace.append((step, operation["displayName"], operation["op"], self.steps[step]))
        self.open.pop(step, None)
        if _size(self.steps) > STATE_LIMIT:
            name = "InngestErrStateOverflowed"
            text = f"The function run exceeded the state size limit of {STATE_LIMIT} bytes."
            self.end("FAILED", {"error": {"error": f"{name}: {text}", "name": name, "message": text}})
        elif not self.open or (operation.get("opts") or {}).get("parallelMode") == "race":
            self.plain()

    # -- the end

    def end(self, status: Status, output: Any = None) -> None:
        """End it, once. A body that runs is not stopped, but its answer will not count."""
        if not self.live:
            return
        self.status, self.output, self.ended_at = status, given_back(output), self._host.timers.time
        self.open.clear()
        for timer in self._timers:
            timer.cancel()
        self._host.ended(self)


def _kept(error: dict[str, Any]) -> dict[str, Any]:
    return {key: error[key] for key in ("message", "name", "stack") if error.get(key)}


def _size(value: Any) -> int:
    return len(json.dumps(value))


def _retry_after(reply: Reply, now: float) -> float | None:
    value = reply.headers.get("retry-after")
    if value is None:
        return None
    return float(value) if value.isdigit() else max(0.0, datetime.fromisoformat(value).timestamp() - now)
