"""Sessions, which are conversations that outlive a run: the port, and stores in memory, in SQLite and in JSON Lines."""

from durably.core.sessions.joining import joined
from durably.core.sessions.jsonl import JSONLSessions
from durably.core.sessions.prefix import AppendLog, SessionReader
from durably.core.sessions.sqlite import SQLiteSessions
from durably.core.sessions.store import MemorySessions, SessionError, SessionStore

__all__ = [
    "AppendLog",
    "JSONLSessions",
    "MemorySessions",
    "SQLiteSessions",
    "SessionError",
    "SessionReader",
    "SessionStore",
    "joined",
]
