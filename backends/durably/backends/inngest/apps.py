"""Which app serves a function: Inngest names functions by both, and all apps of an environment see all events."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Apps", "start_event"]

START = "durably/start."


class Apps:
    """The ids of apps and functions.

    Args:
        own: The id of the app that this program serves.
        others: The ids of the apps of functions that other programs serve, by function id.
    """

    def __init__(self, own: str, others: Mapping[str, str]) -> None:
        self.own = own
        self._others = dict(others)

    def of(self, function_id: str) -> str:
        """The id of the app that serves a function."""
        return self._others.get(function_id, self.own)

    def function_id(self, full_id: str) -> str:
        """The id of a function, from Inngest's or from the name of the event that starts it."""
        full_id = full_id.removeprefix(START)
        for function_id, app_id in self._others.items():
            if full_id == f"{app_id}-{function_id}":
                return function_id
        return full_id.removeprefix(f"{self.own}-")


def start_event(app_id: str, function_id: str) -> str:
    """The name of the event that starts a function of one app, and nothing else."""
    return f"{START}{app_id}-{function_id}"
