"""The port to observers: who is told what happens to runs, once for each thing that happens, and never in a replay.

Owns what is told, and that an observer which fails harms nothing. Does not own when: an engine tells of a record right
after it has committed it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from durably.core.cause import Cause
from durably.core.history import Kind, StepRecord
from durably.core.model import StreamedDelta

__all__ = [
    "AttemptFailed",
    "Happening",
    "Observer",
    "Observers",
    "RunEnded",
    "RunStarted",
    "RunWaiting",
    "StepBegan",
    "StepEnded",
    "StreamedDelta",
    "happenings",
]

logger = logging.getLogger("durably")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The code of a run begins for the first time.

    Attributes:
        run_id: The run.
        function: The id of its function.
        event: What started it, as JSON text without secrets.
        at: When it was created, in seconds since 1970.
    """

    run_id: str
    function: str
    event: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBegan:
    """An attempt of a step begins.

    Attributes:
        run_id: The run.
        function: The id of its function.
        step: The step key.
        kind: What kind of step it is.
        attempt: The number of this execution, from 1.
        at: When, in seconds since 1970.
        name: The name of the invoked function or of the awaited event; empty for others.
        failures: How many earlier attempts failed. The other earlier attempts were interrupted by a crash.
        cause: What began the run, as far as it is known here.
    """

    run_id: str
    function: str
    step: str
    kind: Kind
    attempt: int
    at: float
    name: str = ""
    failures: int = 0
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """An attempt failed, and another one follows.

    Attributes:
        run_id: The run.
        function: The id of its function.
        step: The step key; empty if the code of the function itself failed, outside its steps.
        attempt: The number of the attempt, from 1.
        error: The error as JSON data, without secrets: ``type``, ``message`` and its fields.
        at: When, in seconds since 1970.
        retry_at: When the next attempt begins, in seconds since 1970.
    """

    run_id: str
    function: str
    step: str
    attempt: int
    error: dict[str, Any]
    at: float
    retry_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """A step has ended, and its record is committed.

    Attributes:
        run_id: The run.
        function: The id of its function.
        step: The step key.
        kind: What kind of step it is.
        status: Whether it gave a value.
        attempt: The number of the attempt that ended it, from 1.
        output: The value as JSON text, without secrets, or ``None``.
        error: Why it failed, as JSON data without secrets, or ``None``.
        at: When, in seconds since 1970.
        took: Seconds since this attempt began.
        name: The name of the function that was invoked or of the event that was waited for; empty for others.
        cause: What began the run, as far as it is known here.
    """

    run_id: str
    function: str
    step: str
    kind: Kind
    status: Literal["completed", "failed"]
    attempt: int
    output: str | None
    error: dict[str, Any] | None
    at: float
    took: float
    name: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWaiting:
    """A step of the run waits for a time, an event, or an invoked run.

    Attributes:
        run_id: The run.
        function: The id of its function.
        step: The step key.
        kind: ``"sleep"``, ``"wait_for_event"`` or ``"invoke"``.
        name: The name of the event or of the function; empty for a sleep.
        at: Since when, in seconds since 1970.
        until: When the wait ends or times out, in seconds since 1970; ``None`` if it has no end.
    """

    run_id: str
    function: str
    step: str
    kind: Kind
    name: str
    at: float
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run has ended.

    Attributes:
        run_id: The run.
        function: The id of its function.
        status: How it ended.
        output: Its result as JSON text, without secrets, or ``None``.
        error: Why it failed, as JSON data without secrets, or ``None``.
        at: When, in seconds since 1970.
        took: Seconds since it was created; 0 where the engine does not know.
        cause: What began it, as far as that is known here.
    """

    run_id: str
    function: str
    status: Literal["completed", "failed", "cancelled"]
    output: str | None
    error: dict[str, Any] | None
    at: float
    took: float
    cause: Cause | None = None


Happening = RunStarted | StepBegan | StreamedDelta | AttemptFailed | StepEnded | RunWaiting | RunEnded
"""Anything that an observer is told of."""


class Observer:
    """Receives the events of a worker. Subclass it and override methods.

    A backend takes observers as ``observers=[...]``. Each event is reported once, by the worker that caused it, outside
    replay and after its record was committed. If the process dies in between, the event is lost. The methods are called
    in the event loop and must not block. An exception is logged once and has no effect.
    """

    def run_started(self, event: RunStarted) -> None:
        """The code of a run begins for the first time."""

    def step_began(self, event: StepBegan) -> AbstractContextManager[None] | None:
        """An attempt of a step begins. The body runs within what this returns."""
        return None

    def delta(self, event: StreamedDelta) -> None:
        """A model wrote another piece of its answer."""

    async def flush(self) -> None:
        """A streamed answer has ended: pass on buffered pieces. Its step waits until this returns."""

    def attempt_failed(self, event: AttemptFailed) -> None:
        """An attempt of a step, or of the function's own code, failed, and another one follows."""

    def step_ended(self, event: StepEnded) -> None:
        """A step has a value, or failed for good."""

    def run_waiting(self, event: RunWaiting) -> None:
        """A run waits."""

    def run_ended(self, event: RunEnded) -> None:
        """A run completed, failed or was cancelled."""

    def traceparent(self, run_id: str, step: str, cause: Cause | None) -> str | None:
        """Return the span that calls a function or sends an event, as W3C text, for the runs that it starts.

        It is called before anything is recorded, so that the call or the event carries the span. It may be called again
        for one that was not recorded.

        Args:
            run_id: The run that does it; empty for a program.
            step: Its step; empty for the run itself, when its failure handler starts.
            cause: What began that run.
        """
        return None


_METHODS: dict[type[Any], str] = {
    RunStarted: "run_started",
    StepBegan: "step_began",
    StreamedDelta: "delta",
    AttemptFailed: "attempt_failed",
    StepEnded: "step_ended",
    RunWaiting: "run_waiting",
    RunEnded: "run_ended",
}


class Observers:
    """The observers of one worker, as its engine sees them.

    Args:
        observers: The observers, called in this order.

    Attributes:
        steps: Whether an observer listens to steps. Checked first, so that a step costs nothing else.
        traces: Whether an observer has spans for the runs that a run starts.
        now: Seconds since 1970, by the worker's clock.
        redact: Masks secrets in a text.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        given = tuple(observers)
        for each in given:
            if not isinstance(each, Observer):
                raise TypeError(f"observers= takes subclasses of durably.core.Observer, not {each!r}")
        self._told = {event: [each for each in given if _overrides(each, name)] for event, name in _METHODS.items()}
        self._tracing = [each for each in given if _overrides(each, "traceparent")]
        self.traces = bool(self._tracing)
        self._failed: set[int] = set()
        self.steps = bool(self._told[StepBegan] or self._told[StepEnded])
        self.now: Callable[[], float] = time.time
        self.redact: Callable[[str], str] = str

    def hears(self, event: type[Happening]) -> bool:
        """Return whether an observer listens to this."""
        return bool(self._told[event])

    def tell(self, event: Happening) -> None:
        """Report an event to those who listen to it."""
        name = _METHODS[type(event)]
        for observer in self._told[type(event)]:
            self._call(observer, getattr(observer, name), event)

    async def flush(self) -> None:
        """Make observers pass on buffered pieces of answers."""
        for observer in self._told[StreamedDelta]:
            try:
                await observer.flush()
            except Exception:
                self._note(observer)

    def traceparent(self, run_id: str = "", step: str = "", cause: Cause | None = None) -> str | None:
        """Return the first answer of an :meth:`Observer.traceparent`, or ``None``."""
        for observer in self._tracing:
            found = self._call(observer, lambda asked: asked.traceparent(run_id, step, cause), observer)
            if found is not None:
                return str(found)
        return None

    def tell_of(self, record: StepRecord, function: str, cause: Cause | None = None) -> None:
        """Report the events of a record that was just committed. The start of a body was reported when it began.

        Args:
            record: The record.
            function: The id of the run's function.
            cause: What began the run, if it is known.
        """
        if record.status == "completed" and record.key and not self.steps:
            return
        for event in happenings(record, function, cause):
            if not (isinstance(event, StepBegan) and event.kind == "step"):
                self.tell(event)

    @contextmanager
    def around_body(self, event: StepBegan) -> Iterator[None]:
        """Tell that an attempt begins; its body runs within what the observers gave for that."""
        with ExitStack() as stack:
            for observer in self._told[StepBegan]:
                block = self._call(observer, observer.step_began, event)
                if block is not None:
                    self._call(observer, stack.enter_context, block)
            yield

    def _call(self, observer: Observer, method: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return method(argument)
        except Exception:
            self._note(observer)
            return None

    def _note(self, observer: Observer) -> None:
        """Log what an observer has just raised, the first time: it must not fail what it looks at."""
        if id(observer) not in self._failed:
            self._failed.add(id(observer))
            logger.warning("observer %r failed; its further failures are not logged", observer, exc_info=True)


def _overrides(observer: Observer, name: str) -> bool:
    return getattr(type(observer), name) is not getattr(Observer, name)


def happenings(record: StepRecord, function: str, cause: Cause | None = None) -> list[Happening]:
    """The events that a record stands for. Streams and observers both use it.

    Args:
        record: The record.
        function: The id of the run's function.
        cause: What began the run, if it is known.
    """
    if record.kind == "patch" or record.status in ("stuck", "resumed"):
        return []  # of these, nothing is told
    if record.kind == "run":
        return [_of_run(record, function, cause)]
    run_id, step, attempt = record.run_id, record.key, record.attempt
    if record.status == "retrying":
        return [_attempt_failed(record, function)]
    if record.status == "started":
        began = _began(record, function, cause)
        if record.kind not in ("sleep", "wait_for_event", "invoke"):
            return [began]
        waiting = RunWaiting(
            run_id=run_id,
            function=function,
            step=step,
            kind=record.kind,
            name=record.name,
            at=record.at,
            until=record.due,
        )
        return [began, waiting]
    ended = StepEnded(
        run_id=run_id,
        function=function,
        step=step,
        kind=record.kind,
        status="completed" if record.status == "completed" else "failed",
        attempt=attempt,
        output=record.output,
        error=record.error,
        at=record.at,
        took=record.took,
        name=record.name,
        cause=cause,
    )
    # Sending leaves one record: it begins and ends with it.
    return [_began(record, function, cause), ended] if record.kind == "send_event" else [ended]


def _began(record: StepRecord, function: str, cause: Cause | None) -> StepBegan:
    return StepBegan(
        run_id=record.run_id,
        function=function,
        step=record.key,
        kind=record.kind,
        attempt=record.attempt,
        at=record.at - record.took,
        name=record.name,
        cause=cause,
    )


def _of_run(record: StepRecord, function: str, cause: Cause | None) -> Happening:
    if record.status == "started":
        return RunStarted(run_id=record.run_id, function=function, event=record.output or "", at=record.at)
    if record.status == "retrying":
        return _attempt_failed(record, function)
    return RunEnded(
        run_id=record.run_id,
        function=function,
        status="completed" if record.status == "completed" else "failed" if record.error else "cancelled",
        output=record.output,
        error=record.error,
        at=record.at,
        took=record.took,
        cause=cause,
    )


def _attempt_failed(record: StepRecord, function: str) -> AttemptFailed:
    return AttemptFailed(
        run_id=record.run_id,
        function=function,
        step=record.key,
        attempt=record.attempt,
        error=record.error or {},
        at=record.at,
        retry_at=record.at if record.due is None else record.due,
    )
