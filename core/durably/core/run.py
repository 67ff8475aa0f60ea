"""The handle on one run: looking at it, waiting for it, cancelling, retrying and forking it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

from durably.core.engine import Engine
from durably.core.error_spending import SPENT, carry_spending
from durably.core.error_trace import carry_traceback
from durably.core.errors import DurablyError, InvokeError, RunCancelledError, error_from_json
from durably.core.functions import Function
from durably.core.history import History
from durably.core.ids import check_names_no_secret, check_run_id, new_id
from durably.core.outages import outlast
from durably.core.reference import FunctionRef
from durably.core.run_view import RunStatus, RunView
from durably.core.stream import StreamItem
from durably.core.trace import TEXT_LIMIT, Trace

FIRST_LOOK = 0.05
"""Seconds between two looks at a run whose stream is read, while something happens in it."""

Out = TypeVar("Out")
T = TypeVar("T")


class Run(Generic[Out]):
    """A handle on one run.

    Attributes:
        id: The run.
        view: Its state when this handle was made or last refreshed.
    """

    def __init__(self, engine: Engine, function: FunctionRef[Any, Out], view: RunView) -> None:
        self._engine = engine
        self._function = function
        self.view = view

    @property
    def id(self) -> str:
        """The run's id."""
        return self.view.id

    @property
    def status(self) -> RunStatus:
        """Its status when this handle was made or last refreshed."""
        return self.view.status

    async def refresh(self) -> Self:
        """Read the state of the run again."""
        self.view = await self._engine.view(self.id)
        return self

    async def result(self) -> Out:
        """Wait for the end, also through outages of the engine's server, and return what the function returned.

        Raises:
            InvokeError: If it failed.
            RunCancelledError: If it was cancelled, or skipped by ``singleton``.
        """
        await self.ended()
        if self.view.status is not RunStatus.COMPLETED:
            raise invoke_error(self.view)
        result: Out = self._function.output.decode(self.view.output or "null", step="")
        if isinstance(self._function, Function) and type(self._function).restore is not Function.restore:
            result = self._function.restore(result, await self.history())
        return result

    async def ended(self) -> Self:
        """Wait for the end without raising the run's error, and return this handle, refreshed."""
        self.view = await self._outlast(lambda: self._engine.wait(self.id))
        return self

    async def cancel(self) -> None:
        """Stop it at its next step, along with the children that it waits for. No effect on an ended run."""
        await self._engine.cancel(self.id)
        await self.refresh()

    async def retry(self) -> Self:
        """Resume a failed run from its records with the current code, and return this handle, refreshed.

        Committed steps do not run again. The failed step gets a new set of attempts, and so does the function. A failed
        child is retried with it. ``result()`` waits for the new end.

        Raises:
            RunNotFailedError: If it has not failed.
            UnsupportedFeatureError: If the engine cannot do this.
        """
        self.view = await self._engine.retry_run(self.id)
        return self

    async def fork(self, after: str, *, run_id: str | None = None) -> Run[Out]:
        """Start a new run from a copy of this run's first records, with the current code.

        Later effects get new idempotency keys, because these depend on the run's id.

        Args:
            after: The key of a step that has ended. The new run has everything that was committed up to there, also by
                other branches; steps that had only begun are dropped.
            run_id: The id of the new run. Default: a random one.

        Raises:
            StepNotFoundError: If no such step has ended.
            ValueError: If the id is no run id, or contains a registered secret.
            DurablyError: If the id belongs to another run.
            UnsupportedFeatureError: If the engine cannot do this.
        """
        if run_id is not None:
            check_run_id(run_id)
            check_names_no_secret(run_id, "the id of the new run", self._engine.redact)
        return Run(self._engine, self._function, await self._engine.fork_run(self.id, after, run_id or new_id()))

    async def history(self) -> History:
        """Return its records so far."""
        return await self._engine.history(self.id)

    async def stream(self, from_offset: int = 0) -> AsyncIterator[StreamItem]:
        """Iterate over its events, from its start to its end, in any process, also through outages of a server.

        The events of steps come from the records, the pieces of streamed answers from the backend's ``deltas``.

        Args:
            from_offset: Where to start: one more than the offset of the last item.

        Raises:
            RunNotFoundError: If the run does not exist any more.
        """
        reader = self._engine.stream_reader(self.id, self.view.function)
        store, wait = self._engine.deltas, FIRST_LOOK
        while not reader.ended:
            records = await self._outlast(lambda: self._engine.records_since(self.id, reader.records))
            deltas = [] if store is None else await store.read(self.id, reader.deltas)
            for item in reader.read(records, deltas):
                if item.offset >= from_offset:
                    yield item
            if records or deltas:
                wait = FIRST_LOOK
            elif (await self._outlast(lambda: self._engine.view(self.id))).status is RunStatus.SKIPPED:
                return  # it has no last record
            if not reader.ended:
                await self._engine.watch(self.id, wait)
                wait = min(2 * wait, self._engine.longest_look)

    async def _outlast(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await outlast(f"whoever waits for run {self.id}", ask)

    async def trace(self, *, limit: int | None = TEXT_LIMIT) -> Trace:
        """Return its trace so far. See :meth:`~durably.core.Trace.of`."""
        return Trace.of(await self.history(), limit=limit)

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self._function.id!r}, {self.status.value})"


def invoke_error(view: RunView, step: str = "") -> DurablyError:
    """The error for whoever waited for a run that did not complete."""
    if view.status is RunStatus.FAILED:
        error = view.error or {}
        ours = error.get("type") in DurablyError._classes
        message = str(error_from_json(error)) if ours else error.get("message", "")
        failed = InvokeError(
            step=step, error_type=error.get("type", "Error"), message=message, function=view.function, run_id=view.id
        )
        carry_traceback(failed, str(error.get("traceback") or ""))
        carry_spending(failed, error.get(SPENT))
        return failed
    return RunCancelledError(
        step=step,
        error_type="RunCancelledError",
        message=f"the run was {view.status.value}",
        function=view.function,
        run_id=view.id,
    )
