"""Events, here and there: Inngest's must be objects, ours may hold any JSON and know their run."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from durably.backends.inngest.records import is_fragile
from durably.core import Event

__all__ = [
    "OURS",
    "START",
    "Origin",
    "expression",
    "from_wire",
    "path_of",
    "seed",
    "start_name",
    "start_ulid",
    "to_wire",
]

OURS = "_durably"
THEIRS = "_inngest"
START = "durably/start."

OWN_EVENTS = 20
"""How many of the events that a run sent last cannot end its waits: as many as may still be on their way."""

_EPOCH = 1_735_689_600_000  # 2025-01-01 in milliseconds


@dataclass(frozen=True)
class Origin:
    """What an event says of the run it starts.

    Attributes:
        run: The run's id, or ``None`` where Inngest's own is used.
        line: The ids, ours and Inngest's, of all runs that wait for it, and its own.
        parent: The run that invoked it, or ``None``.
        key: The key of the step that did.
    """

    run: str | None = None
    line: tuple[str, ...] = ()
    parent: str | None = None
    key: str = ""

    def to_data(self) -> dict[str, Any]:
        """As part of an event's data."""
        called = {"parent": self.parent, "key": self.key} if self.parent else {}
        return {"run": self.run, "line": list(self.line), **called}


def start_name(app_id: str, function_id: str) -> str:
    """The name of the event that starts a function of an app, and nothing else: all apps see all events."""
    return f"{START}{app_id}-{function_id}"


def to_wire(data: Any, origin: Origin | None = None) -> dict[str, Any]:
    """An event's data as an object."""
    ours = {} if origin is None else origin.to_data()
    text = json.dumps(data)
    if is_fragile(text):
        ours["text"] = text  # beside the data, which others may listen for
    if not isinstance(data, dict):
        ours["value"] = data
        data = {}
    return {**data, OURS: ours} if ours else data


def from_wire(event: Mapping[str, Any]) -> tuple[Event, Origin]:
    """An event as it came, and what it says of its run. What Inngest and we have added is taken out."""
    data = dict(event.get("data") or {})
    ours = data.pop(OURS, None) or {}
    data.pop(THEIRS, None)
    value = json.loads(ours["text"]) if "text" in ours else ours.get("value", data)
    if event["name"].startswith("inngest/") and not data and not ours.keys() & {"value", "text"}:
        value = None
    ts = event.get("ts")
    seen = Event(event["name"], value, id=event.get("id") or None, ts=ts / 1000 if ts else None)
    return seen, Origin(ours.get("run"), tuple(ours.get("line", ())), ours.get("parent"), ours.get("key", ""))


def path_of(root: str, path: str) -> str:
    """A dotted path in an event's data as an expression."""
    parts = path.removeprefix("data.").split(".")
    steps = (f".{part}" if part.isidentifier() else f"[{json.dumps(part)}]" for part in parts)
    return f"{root}.data{''.join(steps)}"


def expression(match: Mapping[str, Any], sent: Sequence[str] = ()) -> str | None:
    """The condition on an event that a step waits for.

    Args:
        match: What must stand at which path.
        sent: The ids of events that the run has sent before: the server may take them in only after the wait began.
    """
    tests = [f"{path_of('async', path)} == {json.dumps(value)}" for path, value in match.items()]
    tests += [f"async.id != {json.dumps(each)}" for each in sent[-OWN_EVENTS:]]
    return " && ".join(tests) or None


def seed(run_id: str) -> str:
    """The header that makes the server give the event which starts a run always the same id."""
    digest = blake2b(f"start\0{run_id}".encode(), digest_size=16).digest()
    return f"{_EPOCH + int.from_bytes(digest[10:13])},{base64.b64encode(digest[:10]).decode()}"


def start_ulid(run_id: str) -> str:
    """The id that the server makes of :func:`seed`: a ULID whose last bytes are counted up by one."""
    millis, _, text = seed(run_id).partition(",")
    entropy = base64.b64decode(text)
    tail = (int.from_bytes(entropy[6:]) + 1) % 2**32
    value = (int(millis) << 80) | (int.from_bytes(entropy[:6]) << 32) | tail
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
