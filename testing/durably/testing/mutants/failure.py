"""Mutants of C10 to C15: attempts, errors and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from durably.backends.memory import MemoryBackend
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.journal_types import NewRun
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event, NonRetriableError, RetryAfterError, RetryPolicy, Run, SerializationError
from durably.core.attempts import StepCall, StepOutput
from durably.core.durations import Duration, timeout_seconds
from durably.core.errors import CancelSignal, NonDeterminismError, PayloadTooLargeError, Signal, error_to_json
from durably.core.history import Kind, StepRecord
from durably.core.ids import new_id
from durably.core.replay import Recorded
from durably.core.run_events import failed_event
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


class WaitsAsTheyCome(KeyedSteps):
    """What a step waits for is not looked at."""

    async def wait_for_event(
        self, step_id: str, name: str = "", *, match: Mapping[str, Any] | None = None, timeout: Duration | None = None
    ) -> Event | None:
        limit = timeout_seconds(timeout, f"step {step_id!r}: timeout")
        return await self._perform(
            step_id, lambda scope, key: self._engine.wait_for_event(scope, key, name, dict(match or {}), limit)
        )


@mutant("C13")
class AwaitedNamesAsTheyCome(WaitsAsTheyCome):
    """Any text is the name of an event to wait for."""


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


@mutant("C10")
class JitterIgnored(_WithPolicy):
    """All steps that failed together come back together."""

    def policy(self, old: RetryPolicy) -> RetryPolicy:
        return replace(old, jitter=0)


class _OfNobody(RetryPolicy):
    def delay(self, failures: int, seed: str) -> float:
        return super().delay(failures, "")


@mutant("C10")
class JitterIsTheSameForAll(_WithPolicy):
    """The random part of a delay is the same for each step."""

    def policy(self, old: RetryPolicy) -> RetryPolicy:
        return _OfNobody(initial=old.initial, factor=old.factor, maximum=old.maximum, jitter=old.jitter)


class _AtLeast(RetryPolicy):
    def next_delay(self, error: BaseException, failures: int, seed: str) -> float:
        return max(super().next_delay(error, failures, seed), self.delay(failures, seed))


@mutant("C10")
class RetryAfterOnlyLengthens(_WithPolicy):
    """The delay an error asks for is not obeyed where it is a shorter one."""

    def policy(self, old: RetryPolicy) -> RetryPolicy:
        return _AtLeast(initial=old.initial, factor=old.factor, maximum=old.maximum, jitter=old.jitter)


class _Sticky(RetryPolicy):
    def next_delay(self, error: BaseException, failures: int, seed: str) -> float:
        asked = vars(self).setdefault("asked", {})
        if isinstance(error, RetryAfterError):
            asked[seed] = error.delay
        return float(asked.get(seed) or super().next_delay(error, failures, seed))


@mutant("C10")
class RetryAfterSticks(_WithPolicy):
    """The delay an error asks for holds for the failures after it, too."""

    def policy(self, old: RetryPolicy) -> RetryPolicy:
        return _Sticky(initial=old.initial, factor=old.factor, maximum=old.maximum, jitter=old.jitter)


@mutant("C10")
class BackOffForgottenByACrash(ReplaySteps):
    """A step that waits for its next attempt begins it at once after a crash."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        return replace(record, due=None) if record is not None and record.status == "retrying" else record


@mutant("C12")
class BackOffOfFunctionsForgottenByACrash(Driver):
    """A function that waits for its next attempt begins it at once after a crash."""

    def _begin(self, row: Any, records: Any, scheduler: Any) -> RunPass:
        begun = super()._begin(row, records, scheduler)
        return replace(begun, due=None) if row.crashes else begun


class _Handling(Driver):
    def handle(self, run_pass: RunPass, error: Exception) -> None:
        function = run_pass.function
        if function.on_failure is not None:
            cause = Event.model_validate_json(run_pass.first.output or "")
            told = failed_event(function, run_pass.row.id, cause, error_to_json(error))
            new = self.host.new_run(new_id(), function.on_failure.id, told.model_dump_json())
            self.host.log.create(new, self.host.scheduler.clock.now())


@mutant("C12")
class EachFailedAttemptIsHandled(_Handling):
    """on_failure runs after each failed attempt, and not only at the end."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        if failures <= run_pass.function.retries:
            self.handle(run_pass, error)
        return await super().attempt_failed(run_pass, failures, error)


@mutant("C12")
class CancelledRunsAreHandled(_Handling):
    """on_failure runs for a run that was cancelled, too."""

    def interrupt(self, run_id: str, signal: type[Signal]) -> None:
        run_pass = self._passes.get(run_id)
        if run_pass is not None and signal is CancelSignal:
            asyncio.get_running_loop().call_soon(self.handle, run_pass, RuntimeError("cancelled"))
        super().interrupt(run_id, signal)


class _AnyId(Scope):
    def key(self, step_id: str) -> str:
        self._counts.setdefault(step_id, 0)
        return super().key(step_id).removesuffix(":0")


@mutant("C13")
class StepIdsAsTheyCome(KeyedSteps):
    """Any text is the id of a step."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.root = _AnyId()


@mutant("C13")
class ResultsThatCannotBeKeptAreTriedAgain(Driver):
    """A function whose result has no JSON form is run again."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        if isinstance(error, SerializationError):
            error = RuntimeError(str(error))
        return await super().attempt_failed(run_pass, failures, error)


@mutant("C13")
class RefusalsNameNoStep(ReplaySteps):
    """The error of a value that cannot be recorded does not say of which step, and how large it may be."""

    async def fail(self, scope: Scope, record: StepRecord, error: Exception, cancel: str | None = None) -> Any:
        if isinstance(error, PayloadTooLargeError):
            error = PayloadTooLargeError(step="a step", size=0, limit=0)
        return await super().fail(scope, record, error, cancel)
