"""Mutants of what a failure says of its cause: lost, leaked, or told again and again."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core.attempts import StepCall
from durably.core.error_trace import carry_traceback
from durably.core.errors import StepError
from durably.core.history import StepRecord
from durably.core.run_view import RunView
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []

logger = logging.getLogger("durably")


def _without(error: dict[str, Any] | None) -> dict[str, Any] | None:
    return error and {name: value for name, value in error.items() if name != "traceback"}


class _Causeless(RunRecords):
    lost: str

    def record(self, *args: Any, **fields: Any) -> StepRecord:
        if args[2] == self.lost:
            fields["error"] = _without(fields.get("error"))
        return super().record(*args, **fields)


@mutant("C10")
class CauseOfAttemptLost(_Causeless):
    """A failed attempt that is tried again leaves no traceback."""

    lost = "retrying"


@mutant("C11")
class CauseOfStepLost(_Causeless):
    """A step that has failed for good leaves no traceback."""

    lost = "failed"


@mutant("C11")
class CauseShownOnceOnly(ReplaySteps):
    """The error of a step shows where the body failed, but not on replay."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        known = self.records.recorded.last(call.key)
        try:
            return await super().run(scope, call)
        except StepError as error:
            if known is not None and known.final:
                error.__notes__.clear()
            raise


@mutant("C10")
class FailuresLoggedTwice(ReplaySteps):
    """A failed attempt is logged by two layers."""

    async def attempt_failed(
        self, scope: Any, call: StepCall, attempt: int, asked: str, started: float, error: Exception
    ) -> None:
        logger.warning("attempt %d failed: %s", attempt, error)
        await super().attempt_failed(scope, call, attempt, asked, started, error)


@mutant("C12")
class CauseOfRunLost(Driver):
    """The error of a run does not show where its code failed."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        return await super().attempt_failed(run_pass, failures, error.with_traceback(None))


@mutant("C16")
class CauseOfChildLost(ReplaySteps):
    """Whoever called a function is not told where it failed."""

    async def _await_child(self, child: str, due: float | None) -> RunView | None:
        view = await super()._await_child(child, due)
        if view is not None and view.error is not None:
            view.error.pop("traceback", None)
        return view


@mutant("C24")
class SecretsInTracebacks(ReplaySteps):
    """The traceback of a step's error is recorded as Python prints it."""

    async def attempt_failed(
        self, scope: Any, call: StepCall, attempt: int, asked: str, started: float, error: Exception
    ) -> None:
        self.printed = "".join(traceback.format_exception(error))
        await super().attempt_failed(scope, call, attempt, asked, started, error)

    async def fail(self, scope: Any, record: StepRecord, error: Exception, cancel: str | None = None) -> Any:
        error.__notes__ = []
        carry_traceback(error, self.printed)
        return await super().fail(scope, record, error, cancel)


@mutant("C27")
class UnboundedTracebacks(ReplaySteps):
    """The traceback of a step's error is kept at any length."""

    async def fail(self, scope: Any, record: StepRecord, error: Exception, cancel: str | None = None) -> Any:
        carry_traceback(error, "x" * 100_000)
        notes = error.__notes__
        notes.reverse()
        return await super().fail(scope, record, error, cancel)
