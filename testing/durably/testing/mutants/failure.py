"""Mutants of C10 to C15: attempts, errors and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from durably.backends.memory import MemoryBackend
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.journal_types import NewRun
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event, NonRetriableError, RetryPolicy, Run, SerializationError
from durably.core.attempts import StepCall, StepOutput
from durably.core.durations import Duration, timeout_seconds
from durably.core.errors import NonDeterminismError
from durably.core.history import Kind, StepRecord
from durably.core.ids import new_id
from durably.core.replay import Recorded
from durably.core.run_input import encode_data
from durably.core.step_keys import KeyedSteps, Scope
from durably.core.steps import _current
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


class _Forgetful(Recorded):
    """Counts the failures of this pass only."""

    counting = False

    def add_failure(self, key: str) -> None:
        if self.counting:
            super().add_failure(key)


@mutant("C10")
class RetryCountReset(RunRecords):
    """A crash gives a step all its attempts again."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded = _Forgetful(records)
        self.recorded.counting = True


@mutant("C10")
class OneAttemptTooMany(ReplaySteps):
    """A step has as many attempts as retries, and two more."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        retries = self.function.retries if call.retries is None else call.retries
        return await super().run(scope, replace(call, retries=retries + 1))


@mutant("C10")
class StepRetriesIgnored(ReplaySteps):
    """The retries of a step are always those of its function."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        return await super().run(scope, replace(call, retries=None))


class _Patched:
    """A function with another retry policy."""

    def __init__(self, function: Any, policy: RetryPolicy) -> None:
        self._function = function
        self.retry_policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


class _WithPolicy(ReplaySteps):
    def policy(self, old: RetryPolicy) -> RetryPolicy:
        raise NotImplementedError

    def __init__(self, host: Any, function: Any, records: Any, scheduler: Any) -> None:
        patched: Any = _Patched(function, self.policy(function.retry_policy))
        super().__init__(host, patched, records, scheduler)


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
class NonRetriableIsRetried(ReplaySteps):
    """An error that ends the attempts does not."""

    async def attempt_failed(
        self, scope: Scope, call: StepCall, attempt: int, asked: str, started: float, error: Exception
    ) -> None:
        if isinstance(error, NonRetriableError):
            error = RuntimeError(str(error))
        await super().attempt_failed(scope, call, attempt, asked, started, error)


@mutant("C11")
class ErrorsFadeOnReplay(ReplaySteps):
    """A replayed error has lost how often the step was tried, and what it said."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        if record is None or record.error is None or "attempts" not in record.error or not record.final:
            return record
        return replace(record, error={**record.error, "attempts": 0, "message": ""})


@mutant("C11")
class FailedStepsReturnNone(ReplaySteps):
    """A step whose attempts are used up returns None."""

    async def fail(self, scope: Scope, record: StepRecord, error: Exception, cancel: str | None = None) -> Any:
        await self.settled(scope, record.key, record.kind, record.input, "null")
        return None


@mutant("C12")
class FailureHandledTwice(RunRecords):
    """on_failure is started twice."""

    async def finish(
        self,
        scope: Scope,
        status: Literal["completed", "failed"],
        started: float,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
        runs: Sequence[NewRun] = (),
    ) -> None:
        runs = [*runs, *[replace(new, id=new_id()) for new in runs]]
        await super().finish(scope, status, started, output=output, error=error, runs=runs)


@mutant("C12")
class FailureNotHandled(RunRecords):
    """on_failure is forgotten."""

    async def finish(
        self,
        scope: Scope,
        status: Literal["completed", "failed"],
        started: float,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
        runs: Sequence[NewRun] = (),
    ) -> None:
        await super().finish(scope, status, started, output=output, error=error)


@mutant("C12")
class FunctionsAreNotRetried(Driver):
    """The first error outside a step fails the run."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        return await super().attempt_failed(run_pass, run_pass.function.retries + 1, error)


@mutant("C12")
class EarlyFailuresAreRefused(Driver):
    """Code that fails before it has come by all its recorded steps is taken for code that does not fit."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        if not run_pass.records.recorded.exhausted(run_pass.steps.root):
            error = NonDeterminismError(step="", recorded="a step", asked="nothing more")
        return await super().attempt_failed(run_pass, failures, error)


@mutant("C12")
class FailuresBehindGathersAreFinal(Driver):
    """Code that fails right behind a gather is not tried again."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        behind = self.host.log.journal.last_record(run_pass.row.id).key.startswith("gather")
        return await super().attempt_failed(run_pass, run_pass.function.retries + 1 if behind else failures, error)


@mutant("C12")
class FunctionRetryCountReset(Driver):
    """A crash gives a function all its attempts again."""

    async def attempt(self, run_pass: RunPass) -> bool:
        failures = max(0, run_pass.failures - len(run_pass.row.crashes))
        return await super().attempt(replace(run_pass, failures=failures))


@mutant("C13")
class PayloadLimitIgnored(MemoryBackend):
    """Values of any size are recorded."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["max_payload_bytes"] = 2**40
        super().__init__(*args, **options)


@mutant("C13")
class PoisonIsRetried(ReplaySteps):
    """A value that has no JSON form counts as a failed attempt."""

    async def attempt_failed(
        self, scope: Scope, call: StepCall, attempt: int, asked: str, started: float, error: Exception
    ) -> None:
        if isinstance(error, SerializationError):
            error = RuntimeError(str(error))
        await super().attempt_failed(scope, call, attempt, asked, started, error)


@mutant("C13")
class RunIdsAsTheyCome(MemoryBackend):
    """Any text is a run id."""

    async def start(
        self,
        function: Any,
        data: Any = None,
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        timeout: Duration | None = None,
    ) -> Run[Any]:
        reference = self.find_function(function)
        return Run(self, reference, await self.start_run(reference, encode_data(reference, data), run_id, tags))


@mutant("C13")
class EventsAsTheyCome(MemoryBackend):
    """What a program sends is not looked at."""

    async def send(self, *events: Event) -> list[str]:
        return await self.send_events([event.model_copy(update={"id": event.id or new_id()}) for event in events])


@mutant("C13")
class StepEventsAsTheyCome(KeyedSteps):
    """What a step sends is not looked at."""

    async def send_event(self, step_id: str, *events: Event) -> list[str]:
        return await self._perform(step_id, lambda scope, key: self._engine.send_event(scope, key, events))


@mutant("C13")
class AwaitedNamesAsTheyCome(KeyedSteps):
    """Any text is the name of an event to wait for."""

    async def wait_for_event(
        self, step_id: str, name: str = "", *, match: Mapping[str, Any] | None = None, timeout: Duration | None = None
    ) -> Event | None:
        limit = timeout_seconds(timeout, f"step {step_id!r}: timeout")
        return await self._perform(
            step_id, lambda scope, key: self._engine.wait_for_event(scope, key, name, dict(match or {}), limit)
        )


@mutant("C13")
class TimesAsTheyCome(KeyedSteps):
    """Anything that can be made a number is a time to sleep."""

    async def sleep(self, step_id: str, duration: Any = None) -> None:
        delay = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
        await self._perform(step_id, lambda scope, key: self._engine.sleep(scope, key, delay, None))


@mutant("C14")
class NestedStepsAllowed(KeyedSteps):
    """A step inside a body runs."""

    def enter(self, step_id: str) -> Scope:
        token = _current.set(None)
        self.root.busy = None
        try:
            return super().enter(step_id)
        finally:
            _current.reset(token)


@mutant("C15")
class RetriesUnderneath(ReplaySteps):
    """A lost connection is tried again within one attempt."""

    async def attempt(self, scope: Scope, call: StepCall, attempt: int, asked: str) -> StepOutput | None:
        async def once(*args: Any) -> Any:
            value = call.fn(*args)
            return await value if hasattr(value, "__await__") else value

        async def fn(*args: Any) -> Any:
            try:
                return await once(*args)
            except ConnectionError:
                return await once(*args)

        return await super().attempt(scope, replace(call, fn=fn), attempt, asked)
