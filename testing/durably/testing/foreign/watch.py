"""What looks on in the process of an agent: a decorator for its tools, and a call for its model.

Owns how a passage is noticed, and how the process dies there. Without a crash test all of it does nothing.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, overload

from durably.core.steps import Point, PointName
from durably.testing.crash.faults import Crash, FaultPlan
from durably.testing.ledger import EffectLedger, append_line

__all__ = ["ENVIRONMENT", "Watch", "begin_watch", "inside", "model_asked", "order_of", "watched"]

ENVIRONMENT = "DURABLY_FOREIGN"
"""The variable that tells a process of a crash test what to report to, and where to die."""

LEDGER, PASSAGES, TRANSCRIPTS = "ledger.jsonl", "passages.jsonl", "transcripts.jsonl"

Turn = tuple[Literal["call", "result"], str]
"""A tool call in a transcript, or its result, with the call's id."""

Tool = TypeVar("Tool", bound=Callable[..., Any])


class Watch:
    """What one process reports, to files in a folder.

    Args:
        name: The agent's name.
        notes: The folder.
        crashes: Where the process dies.
        group: Whether the processes of its group, which were started with it, die as well.
    """

    def __init__(self, name: str, notes: Path, crashes: Sequence[Crash], *, group: bool = False) -> None:
        self.name = name
        self._group = group
        self._notes = notes
        self._ledger = EffectLedger(notes / LEDGER)
        self._plan = FaultPlan(crashes, "sigkill", self)
        self._running: list[str] = []
        self._unconfirmed: list[str] = []

    def __call__(self, point: Point) -> None:
        """Note a passage; the plan calls this before it strikes."""
        self._ledger(point)
        append_line(self._notes / PASSAGES, json.dumps({"point": point}))

    def crashed(self, point: Point) -> None:
        """The process dies now, with those that it has started."""
        append_line(self._notes / PASSAGES, json.dumps({"killed": point}))
        if self._group:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def begin(self, key: str) -> None:
        """A tool was called."""
        self._running.append(key)
        self._pass("before_body", key)

    def halfway(self) -> None:
        """The tool that began last is in the middle of its effect."""
        if self._running:
            self._pass("in_body", self._running[-1])

    def end(self, key: str) -> None:
        """A tool returned."""
        self._running.remove(key)
        self._unconfirmed.append(key)
        self._pass("after_effect", key)

    def fail(self, key: str) -> None:
        """A tool raised."""
        self._running.remove(key)

    def went_on(self, transcript: Iterable[Turn] | None = None) -> None:
        """The agent shows its model what its tools returned, or has ended."""
        if transcript is not None:
            append_line(self._notes / TRANSCRIPTS, json.dumps(list(transcript)))
        while self._unconfirmed:
            self._pass("after_commit", self._unconfirmed.pop(0))

    def _pass(self, name: PointName, key: str) -> None:
        self._plan(Point(name, self.name, "", key))


_watch: Watch | None = None


def begin_watch(watch: Watch) -> None:
    """Report to this watch from now on."""
    global _watch
    _watch = watch


def order_of(name: str, notes: Path, crashes: Sequence[Crash]) -> str:
    """The value of the variable that a command is started with."""
    return json.dumps({"name": name, "notes": str(notes), "crashes": [asdict(each) for each in crashes]})


def _read_order() -> None:
    order = os.environ.get(ENVIRONMENT)
    if order:
        data = json.loads(order)
        crashes = [Crash(**each) for each in data["crashes"]]
        watch = Watch(data["name"], Path(data["notes"]), crashes, group=True)
        begin_watch(watch)
        atexit.register(watch.went_on)


_read_order()


@overload
def watched(tool: Tool) -> Tool: ...
@overload
def watched(*, by: Sequence[str] | None = None) -> Callable[[Tool], Tool]: ...
def watched(tool: Tool | None = None, *, by: Sequence[str] | None = None) -> Tool | Callable[[Tool], Tool]:
    """Report the calls of a tool to the crash test: ``@watched`` below the decorator of the agent's library.

    Outside a crash test it does nothing.

    Args:
        tool: A function, sync or async. Its name, signature and docstring are kept.
        by: The names of the arguments that identify a call. Default: all that are JSON data. Leave out ids that the
            model makes up: it makes up others after a crash.
    """
    if tool is None:
        return functools.partial(_watch_tool, by=by)
    return _watch_tool(tool, by=by)


def _watch_tool(tool: Tool, by: Sequence[str] | None) -> Tool:
    signature = inspect.signature(tool)

    def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        given = signature.bind(*args, **kwargs).arguments
        return _key(tool.__name__, {name: value for name, value in given.items() if by is None or name in by})

    @functools.wraps(tool)
    def call(*args: Any, **kwargs: Any) -> Any:
        watch = _watch
        if watch is None:
            return tool(*args, **kwargs)
        key = key_of(args, kwargs)
        watch.begin(key)
        try:
            value = tool(*args, **kwargs)
        except BaseException:
            watch.fail(key)
            raise
        watch.end(key)
        return value

    @functools.wraps(tool)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        watch = _watch
        if watch is None:
            return await tool(*args, **kwargs)
        key = key_of(args, kwargs)
        watch.begin(key)
        try:
            value = await tool(*args, **kwargs)
        except BaseException:
            watch.fail(key)
            raise
        watch.end(key)
        return value

    return cast("Tool", call_async if inspect.iscoroutinefunction(tool) else call)


def _key(name: str, arguments: dict[str, Any]) -> str:
    """A name for a call that is the same in every life: the tool's, with what it was called with."""
    plain = {each: value for each, value in arguments.items() if _is_data(value)}
    shown = ", ".join(str(value) for value in plain.values())
    if len(shown) > 40 or any(sign in shown for sign in "/:#*\n"):  # a label could not be read back
        shown = sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
    return f"{name}({shown})"


def _is_data(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def inside() -> None:
    """Mark a point in the middle of a tool's effect where the process may be killed."""
    if _watch is not None:
        _watch.halfway()


def model_asked(transcript: Iterable[Turn] | None = None) -> None:
    """Say that the agent asks its model now: called by the model of the test, with the conversation that it was sent.

    At this point the agent has used the results in the conversation, so it must not begin those calls again (L3).
    Without this call, results count as used when the process ends.

    Args:
        transcript: The tool calls and results in the conversation, in order: ``("call", id)``, ``("result", id)``.
            Each call must have one result (L6).
    """
    if _watch is not None:
        _watch.went_on(transcript)
