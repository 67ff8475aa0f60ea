"""Code of runs that stands still between two requests, so that it need not be replayed for each step."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.backends.inngest.sdk import Request, ResponseInterrupt

__all__ = ["HELD_RUNS", "Held", "HeldCode"]

HELD_RUNS = 1000
"""How many runs one worker holds at most; the one that has waited longest gives way."""


class HeldCode:
    """One pass of a run's code, over one request or several.

    It runs in a task of its own. A step that is new ends the request, but not the code, if it can be held: it goes on
    when the next request brings just that step, and is unwound when none does in time.

    Attributes:
        run_id: Our id of the run.
    """

    run_id: str

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._answer: asyncio.Future[ResponseInterrupt] = self._loop.create_future()
        self._next: asyncio.Future[Request] | None = None
        self._stack: list[str] = []

    async def run(self) -> Any:
        """The code, to its end."""
        raise NotImplementedError

    async def serve(self, request: Request) -> Any:
        """Answer a request: what the code came to, or an interrupt of the SDK that carries the next step."""
        self._answer = self._loop.create_future()
        if self._next is None:
            self._task = asyncio.ensure_future(self.run())
        else:
            self._next.set_result(request)
        assert self._task is not None
        try:
            await asyncio.wait({self._task, self._answer}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._task.done():
            return self._task.result()
        raise self._answer.result()

    async def hold(self, request: Request, answer: ResponseInterrupt) -> Request:
        """End the request under way with an answer, and stand still until the next."""
        self._next = self._loop.create_future()
        self._stack = [*request.stack, *(each.step.id for each in answer.responses)]
        self._answer.set_result(answer)
        return await self._next

    @property
    def stands_still(self) -> bool:
        """Whether the last request was answered without the code having ended."""
        return self._task is not None and not self._task.done()

    def waits_for(self, request: Request) -> bool:
        """Whether a request brings the step that was answered, and nothing else."""
        return self.stands_still and self._loop is asyncio.get_running_loop() and request.stack == self._stack

    def let_go(self) -> None:
        """Unwind the code."""
        if self._task is None or self._next is None or self._task.done() or self._loop.is_closed():
            return
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody else looks at it
        self._next.set_exception(self._answer.result())


class Held:
    """The runs whose code stands still here, by Inngest's id.

    Args:
        seconds: How long each is held at most; 0: not at all.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.limit = HELD_RUNS
        self._held: dict[str, tuple[HeldCode, asyncio.TimerHandle]] = {}

    def keep(self, run_id: str, code: HeldCode) -> None:
        """Hold on to a run's code."""
        self.drop(run_id)
        if len(self._held) >= self.limit:
            self.drop(next(iter(self._held)))
        timer = asyncio.get_running_loop().call_later(self.seconds, self.drop, run_id)
        self._held[run_id] = code, timer

    def take(self, run_id: str, request: Request) -> HeldCode | None:
        """The code that goes on with a request, or ``None`` if it has to be replayed."""
        code, _ = self._held.get(run_id, (None, None))
        if code is None or request.target is not None:
            return None
        if not code.waits_for(request):
            self.drop(run_id)
            return None
        self._held.pop(run_id)[1].cancel()
        return code

    def drop(self, run_id: str) -> None:
        """Unwind a run's code, if it is held."""
        code, timer = self._held.pop(run_id, (None, None))
        if code is not None and timer is not None:
            timer.cancel()
            code.let_go()

    def clear(self) -> None:
        """Unwind all."""
        for run_id in list(self._held):
            self.drop(run_id)
