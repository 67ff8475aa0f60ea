"""What began a run, in brief: for those who are told of it on any worker. Owns whose trace a run goes on with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durably.core.events import Event
from durably.core.ids import check_session_key

__all__ = ["OWN_EVENTS", "Cause", "session_key_of"]

OWN_EVENTS = "durably/function."
"""What the names of the events begin with by which somebody calls a function, instead of telling the world."""

_CALLS = (OWN_EVENTS, "inngest/function.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What began a run.

    Attributes:
        event: The id of its event.
        name: The name of that.
        session_key: The session that the run is about, or ``None``.
        traceparent: The span that called it or sent the event, as W3C text, or ``None``.
    """

    event: str | None = None
    name: str = ""
    session_key: str | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, event: Event | str) -> Cause:
        """What an event says, which may be given as JSON text."""
        read = Event.model_validate_json(event) if isinstance(event, str) else event
        return cls(event=read.id, name=read.name, session_key=session_key_of(read), traceparent=read.traceparent)

    @property
    def is_call(self) -> bool:
        """Whether somebody called the function, and the run belongs to that one's trace."""
        return self.name.startswith(_CALLS)


def session_key_of(event: Event) -> str | None:
    """The session that a run is about: the text at ``session_key`` in its input; ``None`` if there is none."""
    key: Any = event.at("session_key") if isinstance(event.data, dict) else None
    try:
        check_session_key(key)
    except (TypeError, ValueError):
        return None
    return str(key)
