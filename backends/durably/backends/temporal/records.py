"""The records of a run, during one pass of its code: what earlier histories recorded, and what this one comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from durably.backends.temporal.code_change.recorded_history import RecordedHistory
from durably.backends.temporal.outcome import application_error
from durably.backends.temporal.payloads import INPUT, PATCHED, metadata_of, text_of
from durably.core.environment import Environment
from durably.core.errors import NonDeterminismError, error_from_json, error_to_json
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.replay import Recorded, patch_record, settle
from durably.core.serialization import Codec
from durably.core.step_errors import interrupted
from durably.core.step_keys import Scope

__all__ = ["RunRecords", "cause_of"]

T = TypeVar("T")


class RunRecords:
    """The records of one run, and what its code is compared with.

    Temporal itself replays what stands in the current history: a step asks for its activity again, and gets what the
    history has of it. Only the steps of earlier histories are answered from records.

    Args:
        run_id: The run.
        environment: Masks secrets in errors.
        earlier: What earlier histories of this run came to.
        history: What the server has of the current history, while a worker replays it; or ``None``.

    Attributes:
        recorded: The earlier records, which the code is compared with.
        history: See above.
        replayed: How many steps were answered from records.
        has_earlier: Whether an earlier history recorded a step.
    """

    def __init__(
        self, run_id: str, environment: Environment, earlier: Sequence[StepRecord], history: RecordedHistory | None
    ) -> None:
        self.recorded = Recorded(earlier)
        self._earlier = frozenset(record.key for record in earlier if record.key)
        self.has_earlier = bool(self._earlier)
        self.history = history
        self.replayed = 0
        self._run_id = run_id
        self._environment = environment
        self._seq = len(earlier)

    def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        """The final record of the step the code asks for now, or ``None`` if an earlier history has none.

        Raises:
            NonDeterminismError: If the run recorded something else at this place.
        """
        record = self._compare(lambda: self.recorded.take(scope, key, kind, asked))
        if self.history is not None:
            self.history.take(scope.prefix, key, kind, asked)
        if record is None or not record.final:
            return None
        self.replayed += 1
        return record

    def patched(self, scope: Scope, patch_id: str) -> bool:
        """Whether the code of a scope goes by a patch."""
        return self.recorded.patched(scope, patch_id, lambda first: self._decide(patch_id, first))

    def _decide(self, patch_id: str, first: bool) -> StepRecord:
        """The answer of a patch that no earlier history has; ``first``: none of them came further than here.

        Where the current one came further, it has Temporal's own marker, or the run was past the place before the patch
        came. The marker is written as a deprecated one: code without the patch may replay it.
        """
        if first:
            known = self.history is not None and any(
                record.kind == "patch" and record.name == patch_id for record in self.history.records
            )
            first = known or not workflow.unsafe.is_replaying()
            workflow.deprecate_patch(f"{PATCHED}{patch_id}")
        return patch_record(self._run_id, self._seq, patch_id, first, workflow.time())

    def has_begun(self, key: str) -> bool:
        """Whether the current history, while a worker replays it, holds a step: Temporal keeps what it was given."""
        return self.history is not None and any(record.key == key for record in self.history.records)

    def take_gather(self, scope: Scope, key: str, branches: int) -> None:
        """Check a ``gather``; raises what :meth:`take` raises."""
        self._compare(lambda: self.recorded.take_gather(scope, key, branches))
        if self.history is not None:
            self.history.take_gather(scope.prefix, key, branches)

    def check_end(self, scope: Scope) -> None:
        """Check that a scope's code did not end with recorded steps left over; raises what :meth:`take` raises."""
        self._compare(lambda: self.recorded.check_end(scope))
        if self.history is not None:
            self.history.check_end(scope.prefix)

    def check_failure(self, error: Exception) -> None:
        """Check that the code did not fail in a place where the run went on; raises what :meth:`take` raises."""
        if self.history is not None:
            self.history.check_failure(error, self._earlier)

    def settle(self, record: StepRecord, codec: Codec) -> Any:
        """What a final record gives its caller.

        Raises:
            NonDeterminismError: If the code now takes values of another shape than were recorded.
        """
        if record.error is not None:
            return settle(record, codec)
        return self._compare(lambda: settle(record, codec))

    def _compare(self, compare: Callable[[], T]) -> T:
        """Compare the code with what earlier histories recorded, and what this one did."""
        return compare() if self.history is None else self.history.compare(compare)

    def settled(self, kind: Kind, key: str, asked: str, value: RawValue, started: float) -> StepRecord:
        """The record of a step whose activity gave a value.

        Raises:
            NonDeterminismError: If the activity was given another input than the code asks with now.
        """
        _compare(key, metadata_of(value, INPUT), asked)
        return self.add(kind, key, asked, started, output=text_of(value))

    def failed(self, kind: Kind, key: str, asked: str, error: FailureError, started: float) -> StepRecord:
        """The record of a step whose activity failed for good; raises what :meth:`settled` raises."""
        cause = cause_of(error)
        final: Exception = interrupted(key)
        if isinstance(cause, ApplicationError):
            recorded = cause.details[1] if len(cause.details) > 1 else None
            _compare(key, recorded if isinstance(recorded, str) else None, asked)
            final = error_from_json(application_error(cause))
        return self.add(kind, key, asked, started, error=final)

    def add(
        self,
        kind: Kind,
        key: str,
        asked: str,
        started: float,
        *,
        output: str | None = None,
        error: Exception | None = None,
    ) -> StepRecord:
        """The record of a step that has come to its end."""
        now = workflow.time()
        status: RecordStatus = "completed" if error is None else "failed"
        record = StepRecord(
            self._run_id,
            self._seq,
            key,
            kind,
            status,
            input=asked,
            output=output,
            error=None if error is None else error_to_json(error, self._environment.redactor.text),
            at=now,
            took=max(0.0, now - started),
        )
        self._seq += 1
        return record


def cause_of(error: FailureError) -> BaseException | None:
    """What failed an activity, without Temporal's own words about it."""
    return error.cause if isinstance(error, ActivityError) else error


def _compare(key: str, recorded: str | None, asked: str) -> None:
    # Temporal itself does not compare arguments: code that asks with another input would get the old answer.
    if recorded is not None and recorded != asked:
        raise NonDeterminismError(
            step=key, recorded=f"the input {recorded or 'nothing'}", asked=f"the input {asked or 'nothing'}"
        )
