"""Code of runs that stays suspended between two requests, so that it need not be replayed for each step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from durably.backends.inngest.run_cache import CachedRun
from durably.backends.inngest.sdk import Request, ResponseInterrupt, SkipInterrupt
from durably.core.errors import SuspendSignal
from durably.core.step_keys import Scope

__all__ = ["SUSPENDED_RUNS", "SuspendableCode", "SuspendedRuns"]

T = TypeVar("T")

SUSPENDED_RUNS = 1000
"""How many runs one worker keeps suspended at most; the one that has waited longest gives way."""


class SuspendableCode:
    """One pass of a run's code, over one request or several.

    It runs in a task of its own, so that who cancels what is known. A step that is new ends the request; the code may
    stay suspended there: it goes on when the next request brings just that step, and is unwound when none does in time.

    Args:
        request: The request that begins the pass.
        run: What this worker knows of the run; told which steps have ended.
        suspends: Whether the code may stay suspended when a request ends.

    Attributes:
        request: The request that the code is to answer now.
        interrupts: What ended a request, by the prefix of the scope whose code is being unwound for it.
        planned: How many new steps the request's answer has so far.
        answered: Whether the step that the request is for has been run.
        ending: Whether the request was cut off, and the code with it.
    """

    def __init__(self, request: Request, run: CachedRun, *, suspends: bool) -> None:
        self.request = request
        self.planned = 0
        self.answered = False
        self.ending = False
        self._suspends = suspends
        self.interrupts: dict[str, BaseException] = {}
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._answer: asyncio.Future[ResponseInterrupt] = self._loop.create_future()
        self._next: asyncio.Future[Request] | None = None
        self._expected: list[str] = []

    # -- for the driver

    async def start(self, code: Coroutine[Any, Any, Any]) -> Any:
        """Answer the first request, in a task of the code's own.

        Returns:
            What the code came to.

        Raises:
            ResponseInterrupt: If the answer is a step; the code may be suspended behind it.
        """
        self._task = self._loop.create_task(code)
        return await self._answered(self._task)

    async def resume(self, request: Request) -> Any:
        """Answer the next request; like :meth:`start`."""
        assert self._task is not None
        assert self._next is not None
        self._run.settled = request.settled
        self.planned = 0
        self._answer = self._loop.create_future()
        self._next.set_result(request)
        return await self._answered(self._task)

    async def _answered(self, task: asyncio.Task[Any]) -> Any:
        try:
            await asyncio.wait({task, self._answer}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.ending = True
            task.cancel()
            raise
        if not task.done():
            raise self._answer.result()
        # An error holds the frames that it came through, and these what they know of it: all that a request was would
        # stay until the garbage is collected, which takes longer than the requests of a run with many branches.
        self._task = None
        self.interrupts.clear()
        try:
            return task.result()
        finally:
            del task

    # -- for the code's steps

    async def ask(self, scope: Scope, question: Callable[[Request], Awaitable[T]], *, suspends: bool = True) -> T:
        """Put something to Inngest. What is new there ends the request, and the code with it if it cannot be suspended.

        Args:
            scope: Where the code stands.
            question: Asks the SDK; asked again of each further request.
            suspends: Whether the code may be suspended here.

        Raises:
            SuspendSignal: If the code is to be unwound.
        """
        while True:
            try:
                return await question(self.request)
            except (ResponseInterrupt, SkipInterrupt) as interrupt:
                await self._end_request(scope, interrupt, suspends)

    async def _end_request(self, scope: Scope, interrupt: ResponseInterrupt | SkipInterrupt, suspends: bool) -> None:
        # The SDK discovers branches by running each to its next step and unwinding it, so only the run's own scope can
        # be suspended; a request with a target runs one step, and the next request is not for the same code.
        alone = scope.parent is None and self.request.target is None
        self.answered = self.request.target is not None and isinstance(interrupt, ResponseInterrupt)
        try:
            if not (self._suspends and suspends) or not alone or isinstance(interrupt, SkipInterrupt):
                raise SuspendSignal
            self.request = await self._suspend(interrupt)
        except BaseException:
            # Noted, for the driver and the gather around a branch, and so that no step in a `finally` is begun.
            self.interrupts[scope.prefix] = interrupt
            raise

    async def _suspend(self, interrupt: ResponseInterrupt) -> Request:
        """End the request with an answer, and wait for the next one."""
        self._next = self._loop.create_future()
        self._expected = [*self.request.settled, *(each.step.id for each in interrupt.responses)]
        self._answer.set_result(interrupt)
        return await self._next

    def first_time(self, key: str) -> bool:
        """Whether this worker comes for the first time to a step that waits; an empty key stands for the run's code."""
        first = key not in self._run.begun
        self._run.begun.add(key)
        return first

    # -- for the registry

    @property
    def suspended(self) -> bool:
        """Whether the last request was answered without the code having ended."""
        return self._task is not None and not self._task.done()

    def waits_for(self, request: Request) -> bool:
        """Whether a request brings the step that was answered, and nothing else."""
        # Another event loop may serve it: a future of this one cannot be resolved from there.
        same_loop = self._loop is asyncio.get_running_loop()
        return self.suspended and same_loop and request.settled == self._expected

    def unwind(self) -> None:
        """Let the code end where it is suspended."""
        if self._task is None or self._next is None or self._task.done() or self._loop.is_closed():
            return
        # Nobody else looks at how it ends: asyncio would complain about an error that was never retrieved.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._next.set_exception(SuspendSignal())


class SuspendedRuns:
    """The runs whose code is suspended on this worker, by Inngest's id.

    Args:
        seconds: How long each is kept at most; 0: not at all.

    Attributes:
        seconds: The same.
        limit: How many there are at most.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.limit = SUSPENDED_RUNS
        self._runs: dict[str, tuple[SuspendableCode, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def keep(self, run_id: str, code: SuspendableCode) -> None:
        """Keep a run's code, if it is suspended."""
        if not code.suspended:
            return
        self.drop(run_id)
        if len(self._runs) >= self.limit:
            self.drop(next(iter(self._runs)))
        timer = asyncio.get_running_loop().call_later(self.seconds, self.drop, run_id)
        self._runs[run_id] = code, timer

    def take(self, run_id: str, request: Request) -> SuspendableCode | None:
        """The code that goes on with a request, or ``None`` if it has to be replayed."""
        code, timer = self._runs.get(run_id, (None, None))
        # A request with a target is for one branch; the code may be waiting for the one that follows all of them.
        if code is None or timer is None or request.target is not None:
            return None
        if not code.waits_for(request):
            self.drop(run_id)
            return None
        del self._runs[run_id]
        timer.cancel()
        return code

    def drop(self, run_id: str) -> None:
        """Unwind a run's code, if it is kept."""
        code, timer = self._runs.pop(run_id, (None, None))
        if code is not None and timer is not None:
            timer.cancel()
            code.unwind()

    def clear(self) -> None:
        """Unwind all."""
        for run_id in list(self._runs):
            self.drop(run_id)
