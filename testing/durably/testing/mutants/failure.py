"""Mutants of C10 to C15: attempts, errors and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from durably.backends.memory import MemoryBackend
from durably.backends.replay.journal import NewRun
from durably.backends.replay.steps import Execution
from durably.core import NonRetriableError, RetryPolicy, SerializationError
from durably.core.attempts import Body
from durably.core.history import Kind, StepRecord
from durably.core.ids import new_id
from durably.core.step_keys import Scope
from durably.core.steps import _current
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C10")
class RetryCountReset(Execution):
    """A crash gives a step all its attempts again."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._recorded._failures.clear()


@mutant("C10")
class OneAttemptTooMany(Execution):
    """A step has as many attempts as retries, and two more."""

    async def _run(self, scope: Scope, body: Body) -> Any:
        retries = self.function.retries if body.retries is None else body.retries
        return await super()._run(scope, replace(body, retries=retries + 1))


@mutant("C10")
class StepRetriesIgnored(Execution):
    """The retries of a step are always those of its function."""

    async def _run(self, scope: Scope, body: Body) -> Any:
        return await super()._run(scope, replace(body, retries=None))


class _WithPolicy(Execution):
    def policy(self, old: RetryPolicy) -> RetryPolicy:
        raise NotImplementedError

    def __init__(self, host: Any, function: Any, row: Any, records: Sequence[StepRecord]) -> None:
        patched = function._replace(retry_policy=self.policy(function.retry_policy))
        super().__init__(host, patched, row, records)


@mutant("C10")
class NoBackOff(_WithPolicy):
    """The next attempt follows at once."""

    def policy(self, old: RetryPolicy) -> RetryPolicy:
        return replace(old, initial=0.0)


@mutant("C10")
class BackOffDoesNotGrow(_WithPolicy):
    """All delays are the first one."""

    def policy(self, old: RetryPolicy) -> RetryPolicy:
        return replace(old, factor=1.0)


class _Deaf(RetryPolicy):
    def next_delay(self, error: BaseException, failures: int, seed: str) -> float:
        return self.delay(failures, seed)


@mutant("C10")
class RetryAfterIgnored(_WithPolicy):
    """The delay an error asks for is not obeyed."""

    def policy(self, old: RetryPolicy) -> RetryPolicy:
        return _Deaf(initial=old.initial, factor=old.factor, maximum=old.maximum, jitter=old.jitter)


@mutant("C10")
class NonRetriableIsRetried(Execution):
    """An error that ends the attempts does not."""

    async def _failed(
        self, scope: Scope, body: Body, attempt: int, asked: str, started: float, error: Exception
    ) -> object:
        if isinstance(error, NonRetriableError):
            error = RuntimeError(str(error))
        return await super()._failed(scope, body, attempt, asked, started, error)


@mutant("C11")
class ErrorsFadeOnReplay(Execution):
    """A replayed error has lost how often the step was tried, and what it said."""

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super()._take(scope, key, kind, asked)
        if record is None or record.error is None or "attempts" not in record.error or not record.final:
            return record
        return replace(record, error={**record.error, "attempts": 0, "message": ""})


@mutant("C11")
class FailedStepsReturnNone(Execution):
    """A step whose attempts are used up returns None."""

    async def _fail(self, scope: Scope, record: StepRecord, error: Exception, cancel: str | None = None) -> Any:
        await self._settled(scope, record.key, record.kind, record.input, "null")
        return None


@mutant("C12")
class FailureHandledTwice(Execution):
    """on_failure is started twice."""

    async def finish(
        self,
        status: Literal["completed", "failed"],
        started: float,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
        runs: Sequence[NewRun] = (),
    ) -> None:
        runs = [*runs, *[replace(new, id=new_id()) for new in runs]]
        await super().finish(status, started, output=output, error=error, runs=runs)


@mutant("C12")
class FailureNotHandled(Execution):
    """on_failure is forgotten."""

    async def finish(
        self,
        status: Literal["completed", "failed"],
        started: float,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
        runs: Sequence[NewRun] = (),
    ) -> None:
        await super().finish(status, started, output=output, error=error)


@mutant("C12")
class FunctionsAreNotRetried(MemoryBackend):
    """The first error outside a step fails the run."""

    async def _function_failed(
        self, execution: Any, function: Any, row: Any, first: Any, failures: int, error: Exception
    ) -> bool:
        return await super()._function_failed(execution, function, row, first, function.retries + 1, error)


@mutant("C12")
class FunctionRetryCountReset(MemoryBackend):
    """A crash gives a function all its attempts again."""

    async def _execute(self, execution: Any, function: Any, row: Any, records: Any, failures: int) -> bool:
        return await super()._execute(execution, function, row, records, max(0, failures - len(row.crashes)))


@mutant("C13")
class PayloadLimitIgnored(MemoryBackend):
    """Values of any size are recorded."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["max_payload_bytes"] = 2**40
        super().__init__(*args, **options)


@mutant("C13")
class PoisonIsRetried(Execution):
    """A value that has no JSON form counts as a failed attempt."""

    async def _failed(
        self, scope: Scope, body: Body, attempt: int, asked: str, started: float, error: Exception
    ) -> object:
        if isinstance(error, SerializationError):
            error = RuntimeError(str(error))
        return await super()._failed(scope, body, attempt, asked, started, error)


@mutant("C14")
class NestedStepsAllowed(Execution):
    """A step inside a body runs."""

    def _enter(self, step_id: str) -> Scope:
        token = _current.set(None)
        self._root.busy = None
        try:
            return super()._enter(step_id)
        finally:
            _current.reset(token)


@mutant("C15")
class RetriesUnderneath(Execution):
    """A lost connection is tried again within one attempt."""

    async def _attempt_body(self, scope: Scope, body: Body, attempt: int, asked: str) -> Any:
        async def once(*args: Any) -> Any:
            value = body.fn(*args)
            return await value if hasattr(value, "__await__") else value

        async def fn(*args: Any) -> Any:
            try:
                return await once(*args)
            except ConnectionError:
                return await once(*args)

        return await super()._attempt_body(scope, replace(body, fn=fn), attempt, asked)
