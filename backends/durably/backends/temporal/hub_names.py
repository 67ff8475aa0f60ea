"""Which hub knows those who wait for something: told by the event's name and the values that must match."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from durably.core import Event
from durably.core.events import matches
from durably.core.ids import derive_id

__all__ = ["HUBS", "WAIT_HUB", "hub_of_match", "hubs_of_event", "queue_of_hubs", "value_of_match"]

WAIT_HUB = "durably.waits"

HUBS = 16
"""How many hubs share those who wait for events of one name. Waits in flight are found by it: it never changes."""


def queue_of_hubs(queue: str) -> str:
    """The task queue of the hubs that belong to a task queue: one of their own, as :class:`HubWorker` says.

    Args:
        queue: The task queue that the programs which share events have named as their hub queue.
    """
    return f"{WAIT_HUB}/{queue}"


def value_of_match(name: str, match: Mapping[str, Any]) -> str:
    """What those wait for who wait for these values: 32 hexadecimal digits, the same for values that are the same.

    Args:
        name: The event name.
        match: Dotted paths and the values that must be there.
    """
    values = json.dumps([[path, _plain(match[path])] for path in sorted(match)], sort_keys=True)
    return derive_id("wait", name, values)


def hub_of_match(queue: str, name: str, match: Mapping[str, Any]) -> str:
    """The workflow id of the hub of those who wait for these values.

    Args:
        queue: The task queue that the hubs belong to.
        name: The event name.
        match: Dotted paths and the values that must be there.
    """
    return _hub_of_value(queue, name, value_of_match(name, match))


def hubs_of_event(queue: str, event: Event, kinds: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """The hubs of those who wait for the values that an event has, with these values.

    Args:
        queue: The task queue that the hubs belong to.
        event: The event.
        kinds: By which paths runs wait. Where the event has nothing at one of them, nobody waits for it by these.
    """
    matched = ({path: event.at(path) for path in paths} for paths in kinds)
    hubs: dict[str, list[str]] = {}
    for match in matched:
        if matches(event, match):
            value = value_of_match(event.name, match)
            hubs.setdefault(_hub_of_value(queue, event.name, value), []).append(value)
    return hubs


def _hub_of_value(queue: str, name: str, value: str) -> str:
    return f"{WAIT_HUB}/{queue}/{name}/{int(value, 16) % HUBS}"


def _plain(value: Any) -> Any:
    """A JSON value in the one form that all values have which are the same to :func:`matches`."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
