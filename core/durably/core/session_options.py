"""What an agent's ``sessions=`` and ``on_message=`` come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from weakref import WeakKeyDictionary

from durably.core.error_text import shown
from durably.core.errors import DefinitionError
from durably.core.functions import Singleton
from durably.core.sessions import SessionReader, SessionStore
from durably.core.steps import current_step

__all__ = ["OnMessage", "one_run_a_session", "readers"]

OnMessage = Literal["queue", "steer", "cancel"]
"""What becomes of a message that arrives while a run of its session is live."""


def one_run_a_session(agent: str, on_message: object, sessions: object, singleton: Singleton | None) -> Singleton:
    """Return the rule by which the runs of a session follow each other.

    Args:
        agent: The agent's name.
        on_message: Its option.
        sessions: Its store, or what stands for it.
        singleton: Its own ``singleton=``.

    Raises:
        DefinitionError: If the options do not go together.
    """
    where = f"agent {agent!r}"
    if on_message not in ("queue", "steer", "cancel"):
        raise DefinitionError(f"{where}: on_message={shown(on_message)}: use 'queue', 'steer' or 'cancel'")
    if singleton is not None:
        raise DefinitionError(f"{where}: on_message= allows one run a session already: take singleton= out")
    if on_message == "steer" and sessions is None:
        raise DefinitionError(f'{where}: on_message="steer" needs a store of sessions: add sessions="backend"')
    return Singleton("session_key", mode="cancel" if on_message == "cancel" else "queue")


def readers(sessions: SessionStore | Literal["backend"] | None) -> Callable[[], SessionReader] | None:
    """Return what gives, within the body of a step, the reader of an agent's sessions.

    Raises:
        DefinitionError: If ``sessions`` is no store.
    """
    if sessions is None:
        return None
    if isinstance(sessions, str) and sessions == "backend":
        return _Readers().of_backend
    if not isinstance(sessions, SessionStore) or isinstance(sessions, type):
        raise DefinitionError(
            f'sessions={shown(sessions)} is no store of sessions: write sessions="backend" or '
            'sessions=SQLiteSessions("sessions.db")'
        )
    reader = SessionReader(sessions)
    return lambda: reader


class _Readers:
    """One reader for each store, as each knows the sessions of its own."""

    def __init__(self) -> None:
        self._readers: WeakKeyDictionary[SessionStore, SessionReader] = WeakKeyDictionary()

    def of_backend(self) -> SessionReader:
        store = current_step().services.sessions
        if store is None:
            raise DefinitionError('sessions="backend": this engine keeps no sessions; give the agent a store')
        return self._readers.setdefault(store, SessionReader(store))
