"""Mutants of C27: errors of user code that reach further than they may."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core.attempts import StepCall, StepOutput
from durably.core.body_threads import BodyThreads
from durably.core.history import StepRecord
from durably.core.step_keys import Scope
from durably.testing.conformance.subject import Kill
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C27")
class ErrorTextOfAttempts(RunRecords):
    """The text of an attempt's error is taken as it is."""

    async def commit(self, *args: Any, error: Exception | None = None, **options: Any) -> StepRecord:
        if error is not None:
            str(error).encode()
        return await super().commit(*args, error=error, **options)


@mutant("C27")
class ErrorTextOfFunctions(Driver):
    """The text of a function's error is taken as it is."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        str(error).encode()
        return await super().attempt_failed(run_pass, failures, error)


@mutant("C27")
class CancellationsOfTheCode(ReplaySteps):
    """A cancellation of a step is taken for the engine's own, whoever cancelled."""

    def is_ending(self) -> bool:
        return True


@mutant("C27")
class HungBodiesKeepTheirThreads(MemoryBackend):
    """A thread whose body outlived its timeout is not replaced."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.environment.body_threads = BodyThreads(spare=0)


class _Bodies(ReplaySteps):
    """Bodies that are wrapped, to do something with what they raise."""

    def raised(self, error: BaseException) -> Any:
        raise error

    async def attempt(self, scope: Scope, call: StepCall, attempt: int, asked: str) -> StepOutput | None:
        def called(*args: Any) -> Any:
            try:
                return call.fn(*args)
            except BaseException as error:
                return self.raised(error)

        async def awaited(*args: Any) -> Any:
            try:
                return await call.fn(*args)
            except BaseException as error:
                return self.raised(error)

        fn = awaited if inspect.iscoroutinefunction(call.fn) else called  # a sync body stays in its thread
        return await super().attempt(scope, replace(call, fn=fn), attempt, asked)


@mutant("C27")
class ExitsOfBodiesEndTheWorker(_Bodies):
    """A body that exits takes its worker along."""

    def raised(self, error: BaseException) -> Any:
        if isinstance(error, SystemExit):
            self.host.crash(Kill())
        raise error


@mutant("C27")
class ExhaustedBodiesReturnNothing(_Bodies):
    """A body that raises StopIteration is taken for one that returned."""

    def raised(self, error: BaseException) -> Any:
        if isinstance(error, StopIteration):
            return None
        raise error


@mutant("C27")
class ExitsOfFunctionsEndTheWorker(Driver):
    """A function that exits takes its worker along."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        if "SystemExit" in repr(error):
            self.crash(Kill())
        return await super().attempt_failed(run_pass, failures, error)


@mutant("C27")
class SelfCancelledBodiesReturnNothing(_Bodies):
    """A body that cancels its own task is taken for one that returned."""

    def raised(self, error: BaseException) -> Any:
        if isinstance(error, asyncio.CancelledError):
            return None
        raise error
