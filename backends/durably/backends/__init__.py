"""The engines that need no other package. Temporal and Inngest stand in modules of their own."""

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.backends.sqlite import SQLiteBackend
from durably.backends.sqlite_deltas import SQLiteDeltas

__all__ = ["MemoryBackend", "MemoryJournal", "SQLiteBackend", "SQLiteDeltas", "SQLiteJournal"]
