"""Mutants of C23 and C24: what is written, and how."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.journal_types import NewRun
from durably.backends.replay.records import Log, RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event
from durably.core.history import StepRecord
from durably.core.run import Run
from durably.core.run_input import encode_data
from durably.core.secrets import Redactor
from durably.core.serialization import encode_input
from durably.testing.mutants.failure import WaitsAsTheyCome
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


@mutant("C24")
class SecretsInErrors(RunRecords):
    """The errors of steps are recorded with the secrets they mention."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, replace(environment, redactor=_Blind()), row, records, scheduler)


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


@mutant("C24")
class SecretsInInputs(ReplayHost):
    """What starts a run is kept with the secrets in it."""

    def new_run(self, run_id: str, function: str, event: str, parent: str | None = None) -> NewRun:
        return replace(super().new_run(run_id, function, event, parent), event=event)


@mutant("C24")
class SecretsInArguments(ReplaySteps):
    """What a step was asked with is recorded with the secrets in it."""

    def asked(self, args: Sequence[Any], key: str) -> str:
        return encode_input(args, step=key)


class _NotByRepr(Redactor):
    def add(self, secret: Any) -> None:
        super().add(secret)
        self._forms = [form for form in self._forms if form != repr(str(secret))[1:-1] or form == secret]


@mutant("C24")
class SecretsShownByRepr(_Redacting):
    """A secret that ``repr`` writes with escapes is not recognised."""

    rules = _NotByRepr


@mutant("C24")
class SecretsToldToObservers(MemoryBackend):
    """Observers are told the pieces of an answer with the secrets in them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.environment.observers.redact = str


@mutant("C24")
class SecretsInTags(MemoryBackend):
    """A run keeps the tags that it is given, with the secrets in them."""

    async def start(
        self, function: Any, data: Any = None, *, run_id: str | None = None, tags: Sequence[str] = (), **options: Any
    ) -> Run[Any]:
        if not tags:
            return await super().start(function, data, run_id=run_id, **options)
        reference = self.find_function(function)
        return Run(self, reference, await self.start_run(reference, encode_data(reference, data), run_id, tags))


@mutant("C24")
class SecretsInResults(Driver):
    """What a function returned is recorded with the secrets in it."""

    async def attempt(self, run_pass: RunPass) -> bool:
        masked = self.host.environment
        self.host.environment = replace(masked, redactor=_Blind())
        try:
            return await super().attempt(run_pass)
        finally:
            self.host.environment = masked


@mutant("C23")
class RecordsArePython(MemoryJournal):
    """What a step returned is written as Python shows it."""

    def append(self, record: StepRecord, fence: int) -> None:
        if record.output is not None and record.kind == "step":
            record = replace(record, output=repr(json.loads(record.output)))
        super().append(record, fence)


@mutant("C24")
class SecretsInMatches(WaitsAsTheyCome):
    """What an event is matched with may be a secret."""
