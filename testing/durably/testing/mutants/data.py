"""Mutants of C23 and C24: what is written, and how."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.records import Log
from durably.core import Event
from durably.core.history import StepRecord
from durably.core.secrets import Redactor
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C23")
class Pickled(MemoryJournal):
    """Values are kept as pickles."""

    def append(self, record: StepRecord, fence: int) -> None:
        if record.output is not None:
            record = replace(record, output=pickle.dumps(record.output, protocol=0).decode("latin-1"))
        super().append(record, fence)

    def records(self, run_id: str) -> list[StepRecord]:
        return [
            record if record.output is None else replace(record, output=pickle.loads(record.output.encode("latin-1")))
            for record in super().records(run_id)
        ]

    def last_record(self, run_id: str) -> StepRecord:
        return self.records(run_id)[-1]


@mutant("C23")
class NoSchemaVersion(MemoryJournal):
    """Records do not say which version they are."""

    def records(self, run_id: str) -> list[StepRecord]:
        return [replace(record, v=0) for record in super().records(run_id)]


class _Blind(Redactor):
    def text(self, text: str) -> str:
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        return True


class _Redacting(MemoryBackend):
    rules: type[Redactor]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.environment.redactor = self.rules(options.get("secrets", ()))
        self.environment.redactor.add_from(self.resources)


@mutant("C24")
class SecretsUnredacted(_Redacting):
    """Secrets are written as they are."""

    rules = _Blind


class _NotInErrors(Redactor):
    def data(self, data: Any) -> Any:
        return data


@mutant("C24")
class SecretsInErrors(_Redacting):
    """Errors are recorded with the secrets they mention."""

    rules = _NotInErrors


class _NotInLogs(Redactor):
    def filter(self, record: logging.LogRecord) -> bool:
        return True


@mutant("C24")
class SecretsInLogs(_Redacting):
    """Log lines are printed with the secrets they mention."""

    rules = _NotInLogs


class _PlainOnly(Redactor):
    def add(self, secret: Any) -> None:
        super().add(secret)
        self._forms = self._forms[-1:]


@mutant("C24")
class SecretsEscapedByJson(_Redacting):
    """A secret that JSON writes with escapes is not recognised."""

    rules = _PlainOnly


@mutant("C24")
class SecretsInEvents(Log):
    """Events are kept with the secrets they hold."""

    def redacted(self, events: Iterable[Event]) -> list[Event]:
        return list(events)
