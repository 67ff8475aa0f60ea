"""Events, here and there: Inngest's must be objects, ours may hold any JSON and know their run."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

import inngest

from durably.backends.inngest.outcome import error_data
from durably.backends.inngest.records import is_fragile
from durably.backends.inngest.sdk import ServerClient
from durably.core import Event, Function
from durably.core.environment import Environment
from durably.core.errors import PayloadTooLargeError
from durably.core.functions import FailedRun
from durably.core.ids import derive_id
from durably.core.run_events import FAILED, INVOKED, STARTED, cron_event, outside_events

__all__ = [
    "CALL_ABANDONED",
    "FUNCTION_CANCELLED",
    "FUNCTION_FAILED",
    "EventSender",
    "Origin",
    "event_data",
    "event_expression",
    "path_expression",
    "read_event",
    "start_event_id",
    "trigger_event",
]

OWN_FIELD = "_durably"
INNGEST_FIELD = "_inngest"

FUNCTION_FAILED = "inngest/function.failed"
SCHEDULED = "inngest/scheduled.timer"
FUNCTION_CANCELLED = "inngest/function.cancelled"

CALL_ABANDONED = "durably/call.abandoned"
"""Sent when a step no longer waits for a child."""

OWN_EVENTS = 20
"""How many of the events that a run sent last cannot end its waits: as many as may still be on their way."""

_EPOCH = 1_735_689_600_000  # 2025-01-01 in milliseconds


@dataclass(frozen=True)
class Origin:
    """What an event says of the run it starts.

    Attributes:
        run: The run's id, or ``None`` where Inngest's own is used.
        ancestry: The ids, ours and Inngest's, of all runs that wait for it, and its own.
        parent: The run that invoked it, or ``None``.
        key: The key of the step that did.
        judged: Whether the function's own type has judged the event's data before it was sent.
        tags: What the run can be found by.
        traceparent: The span that starts it or sent the event, or ``None``.
    """

    run: str | None = None
    ancestry: tuple[str, ...] = ()
    parent: str | None = None
    key: str = ""
    judged: bool = True
    tags: tuple[str, ...] = ()
    traceparent: str | None = None

    def to_data(self) -> dict[str, Any]:
        """As part of an event's data."""
        called = {"parent": self.parent, "key": self.key} if self.parent else {}
        # Inngest evaluates `line` in the expressions of `cancelOn`: functions.py has them.
        unjudged = {} if self.judged else {"judged": False}
        tagged = {"tags": list(self.tags)} if self.tags else {}
        traced = {"traceparent": self.traceparent} if self.traceparent else {}
        if self.run is None:  # of an event that starts whatever it triggers
            return traced
        return {"run": self.run, "line": list(self.ancestry), **called, **unjudged, **tagged, **traced}


class EventSender:
    """Hands over events to Inngest.

    Args:
        client: The way to the server.
        environment: Masks secrets in events, and says how large one may be.
    """

    def __init__(self, client: ServerClient, environment: Environment) -> None:
        self._client = client
        self._environment = environment

    async def send(self, events: Sequence[Event]) -> list[str]:
        """Send events; their ids, which are new ones where they have none."""
        named = outside_events(events)
        await self._client.send([self._encode(event) for event in named])
        return [event.id or "" for event in named]

    def _encode(self, event: Event) -> inngest.Event:
        text = self._checked(event.model_dump_json())
        return inngest.Event(
            name=event.name,
            data=event_data(json.loads(text)["data"], Origin(traceparent=event.traceparent)),
            id=event.id or "",
            ts=math.ceil((event.ts or 0) * 1000),  # whole milliseconds, and not before its time
        )

    async def start(self, name: str, run_id: str, data: str, *, judged: bool, tags: Sequence[str] = ()) -> str:
        """Start a run; the server's id of its event, which is the same each time.

        Args:
            name: The name of the event that starts the function.
            run_id: Our id of the run.
            data: The input as JSON text.
            judged: Whether the function's own type has judged it.
            tags: What the run can be found by.
        """
        place = self._environment.observers.traceparent()
        origin = Origin(run_id, (run_id,), judged=judged, tags=tuple(tags), traceparent=place)
        wired = event_data(json.loads(self._checked(data)), origin)
        event = inngest.Event(name=name, data=wired, id=derive_id("start", run_id, ""))
        (event_id,) = await self._client.send([event], _seed(run_id))
        return event_id

    async def abandon(self, child: str) -> None:
        """End a run that nobody waits for any more."""
        event = inngest.Event(name=CALL_ABANDONED, data={"run": child}, id=derive_id("abandon", child, ""))
        await self._client.send([event])

    def _checked(self, text: str) -> str:
        text = self._environment.redactor.text(text)
        limit = self._environment.max_payload_bytes
        if len(text) > limit:
            raise PayloadTooLargeError(step="", size=len(text), limit=limit)
        return text


# -- data


def event_data(data: Any, origin: Origin | None = None) -> dict[str, Any]:
    """An event's data as an object."""
    own = {} if origin is None else origin.to_data()
    text = json.dumps(data)
    if is_fragile(text):
        own["text"] = text  # beside the data, which others may listen for
    if not isinstance(data, dict):
        own["value"] = data
        data = {}
    return {**data, OWN_FIELD: own} if own else data


def read_event(event: Mapping[str, Any]) -> tuple[Event, Origin]:
    """An event as it came, and what it says of its run. What Inngest and we have added is taken out."""
    data = dict(event.get("data") or {})
    own = data.pop(OWN_FIELD, None) or {}
    data.pop(INNGEST_FIELD, None)
    value = json.loads(own["text"]) if "text" in own else own.get("value", data)
    if event["name"].startswith("inngest/") and not data and not own.keys() & {"value", "text"}:
        value = None
    ts = event.get("ts")
    # Not Event(...): the rules for events that durably makes do not hold for those of other programs.
    fields = {"name": event["name"], "data": value, "id": event.get("id") or None, "ts": ts / 1000 if ts else None}
    fields["traceparent"] = own.get("traceparent")
    read = Event.model_validate(fields)
    return read, Origin(
        run=own.get("run"),
        ancestry=tuple(own.get("line", ())),
        parent=own.get("parent"),
        key=own.get("key", ""),
        judged=own.get("judged", True),
        tags=tuple(own.get("tags", ())),
        traceparent=read.traceparent,
    )


def trigger_event(function: Function[Any, Any], ctx: inngest.Context) -> tuple[Event, Origin]:
    """What started a run of a function, and what that says of the run."""
    event, origin = read_event(ctx.event.model_dump())
    if function.input.type is FailedRun and event.name == FUNCTION_FAILED:
        return _failed_event(event, function.id.removesuffix("-failure")), Origin()
    if function.cron is not None and event.name == SCHEDULED:
        due = datetime.fromisoformat(event.data.get("scheduledAt") or event.data["fireAt"])
        tick = cron_event(function, function.cron.schedule, due)
        event = event.model_copy(update={"name": tick.name, "data": tick.data})
    if function.batch is not None:
        event = event.model_copy(update={"data": [read_event(each.model_dump())[0].data for each in ctx.events]})
    if (
        origin.run is not None and origin.judged
    ):  # the names that say so on every engine, so that the history says it too
        event = event.model_copy(update={"name": INVOKED if origin.parent else STARTED})
    return event, origin


def _failed_event(event: Event, function: str) -> Event:
    """What a failure handler is told, from Inngest's own event."""
    data = event.data
    cause, origin = read_event(data["event"])
    failed = FailedRun(
        run_id=origin.run or data["run_id"],
        function=function,
        event=cause,
        error=error_data(data.get("error")),
    )
    return Event(FAILED, failed.model_dump(mode="json"), id=event.id)


# -- expressions, which Inngest evaluates


def path_expression(root: str, path: str) -> str:
    """A dotted path in an event's data."""
    parts = path.removeprefix("data.").split(".")
    steps = (f".{part}" if part.isidentifier() else f"[{json.dumps(part)}]" for part in parts)
    return f"{root}.data{''.join(steps)}"


def event_expression(match: Mapping[str, Any], sent: Sequence[str] = ()) -> str | None:
    """The condition on an event that a step waits for.

    Args:
        match: What must stand at which path.
        sent: The ids of events that the run has sent before: the server may take them in only after the wait began.
    """
    tests = [test for path, value in match.items() for test in _tests(path, value)]
    tests += [f"async.id != {json.dumps(each)}" for each in sent[-OWN_EVENTS:]]
    return " && ".join(tests) or None


def _tests(path: str, value: Any) -> list[str]:
    """What must hold for `durably.core.events.matches` to find a value at a path."""
    place = path_expression("async", path)
    equal = f"{place} == {json.dumps(value)}"
    if value is not None:
        return [equal]
    *outer, name = path.removeprefix("data.").split(".")
    # Inngest takes what is not there for null.
    holder = path_expression("async", ".".join(outer)) if outer else "async.data"
    return [f"{json.dumps(name)} in {holder}", equal]


# -- the id of the event that starts a run


def _seed(run_id: str) -> str:
    """The header that makes the server give the event which starts a run always the same id."""
    digest = blake2b(f"start\0{run_id}".encode(), digest_size=16).digest()
    return f"{_EPOCH + int.from_bytes(digest[10:13])},{base64.b64encode(digest[:10]).decode()}"


def start_event_id(run_id: str) -> str:
    """The id that the server makes of the seed: a ULID whose last bytes are counted up by one."""
    millis, _, text = _seed(run_id).partition(",")
    entropy = base64.b64decode(text)
    tail = (int.from_bytes(entropy[6:]) + 1) % 2**32
    value = (int(millis) << 80) | (int.from_bytes(entropy[:6]) << 32) | tail
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
