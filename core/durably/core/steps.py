"""The port the agent loop is written against: three primitives, and four conveniences on top of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, TypeVarTuple, overload

from durably.core.durations import Duration
from durably.core.errors import UnsupportedFeatureError
from durably.core.events import Event
from durably.core.ids import derive_id
from durably.core.observer import Observers
from durably.core.reference import FunctionRef
from durably.core.services import EngineServices

__all__ = ["Duration", "Point", "PointName", "Probe", "StepAPI", "StepInfo", "current_step"]

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")
Ts = TypeVarTuple("Ts")

PointName = str
"""A named place where the harness can inject a fault; ``durably.testing.crash.faults`` lists them."""


class Point(NamedTuple):
    """One passage of an engine through a named point.

    Attributes:
        name: Such as ``"after_effect"``.
        function: The id of the function that runs.
        run_id: Its run.
        key: The step key; empty for a point of the run itself.
    """

    name: PointName
    function: str
    run_id: str
    key: str


Probe = Callable[[Point], Awaitable[None] | None]
"""Called at each point when set on a backend. It may raise a ``Signal``, kill the process, or wait."""


@dataclass(slots=True)
class StepInfo:
    """The step in which a body runs. See :func:`current_step`.

    Attributes:
        run_id: The run.
        key: The step key, such as ``"tool-charge:1"``.
        attempt: The number of this execution, from 1; it is different for each execution of the step.
        resources: The backend's ``resources=``, by name. Never recorded.
        function: The id of the run's function.
        observers: The observers of this worker.
        max_payload_bytes: The largest value it may return, as JSON, or ``None`` if unknown.
        services: Further services of the engine.
    """

    run_id: str
    key: str
    attempt: int
    resources: Mapping[str, Any]
    _beat: Callable[[], None] | None = None
    function: str = ""
    observers: Observers = field(default_factory=Observers)
    max_payload_bytes: int | None = None
    services: EngineServices = field(default_factory=EngineServices)

    @property
    def idempotency_key(self) -> str:
        """32 hexadecimal digits: the same for every execution of this step, different for every other step.

        Pass it to the service that has the effect (a payment provider, a table with a unique column), so that a second
        execution changes nothing.
        """
        return derive_id("effect", self.run_id, self.key)

    def heartbeat(self) -> None:
        """Tell the engine that a long body is alive. Call it regularly in bodies that take minutes."""
        if self._beat is not None:
            self._beat()


_current: ContextVar[StepInfo | None] = ContextVar("durably_current_step", default=None)


def current_step() -> StepInfo:
    """The step whose body is running.

    Raises:
        RuntimeError: If no body is running.
    """
    info = _current.get()
    if info is None:
        raise RuntimeError("current_step() was called outside the body of a step; in a function use ctx instead")
    return info


class StepAPI(ABC):
    """Durable steps. Every backend implements it; the agent loop and users' functions call it.

    A step id names the step in this run. An id that is used again is numbered in program order: ``think``,
    ``think:1``, ``think:2``.
    """

    @overload
    async def run(
        self,
        step_id: str,
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        output_type: type[T] | None = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        crash_limit: int | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        step_id: str,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        output_type: type[T] | None = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        crash_limit: int | None = None,
    ) -> T: ...
    @abstractmethod  # type: ignore[misc]  # mypy cannot match *args: *Ts with *args: Any
    async def run(
        self,
        step_id: str,
        fn: Callable[..., Any],
        *args: Any,
        output_type: Any = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        crash_limit: int | None = None,
    ) -> Any:
        """Run a body once and record its return value.

        Args:
            step_id: Names the step.
            fn: The body, sync (run in a thread) or async.
            args: Its arguments: JSON types, dataclasses or pydantic models.
            output_type: The type of the value. Default: the body's return annotation.
            retries: How often to retry a failed attempt. Default: as the function says.
            timeout: How long one attempt may take.
            at_most_once: Never run the body twice: record that it starts, and fail with
                :class:`~durably.core.StepInterruptedError` if a crash interrupts it. Not retried.
            crash_limit: How many crashes may interrupt the body. Default: as the function says.

        Returns:
            The body's value, rebuilt from its JSON.

        Raises:
            StepError: If no attempt is left; the same on replay.
            StepCrashedError: If more than ``crash_limit`` crashes interrupted the body; the same on replay.
            SerializationError: If an argument or the value has no JSON form or is too large.
        """

    @abstractmethod
    async def invoke(
        self, step_id: str, function: FunctionRef[In, Out], data: In | None = None, *, timeout: Duration | None = None
    ) -> Out:
        """Call another durable function and wait for its result.

        Args:
            step_id: Names the step.
            function: What to run; an agent is a function too.
            data: Its input.
            timeout: How long to wait at most; then the child is cancelled.

        Raises:
            InvokeError: If the child failed or was cancelled.
            StepTimeoutError: If it took too long.
        """

    @abstractmethod
    async def send_event(self, step_id: str, *events: Event) -> list[str]:
        """Send events, now or at each event's ``ts``. It never waits for what they start.

        Returns:
            The ids of the events, in their order.

        Raises:
            SerializationError: If the data of an event has no JSON form. None of them is sent.
        """

    @abstractmethod
    async def sleep(self, step_id: str, duration: Duration) -> None:
        """Wait for a duration: seconds, a ``timedelta``, or ``"1h30m"``. A crash does not make it longer.

        Raises:
            TypeError: If it is no duration, such as a bool or ``None``.
            ValueError: If it is negative, not finite, longer than ten years, or a text that cannot be read.
        """

    @abstractmethod
    async def sleep_until(self, step_id: str, when: datetime | float | str) -> None:
        """Wait until a time: an aware ``datetime``, seconds since 1970, or ISO 8601 with a zone.

        Raises:
            TypeError: If it is no time.
            ValueError: If it has no time zone, is before 1970 or after the year 9999, or cannot be read.
        """

    @abstractmethod
    async def wait_for_event(
        self, step_id: str, name: str, *, match: Mapping[str, Any] | None = None, timeout: Duration | None = None
    ) -> Event | None:
        """Wait for the first event of this name that is received from now on.

        If the event answers a question, send the question after this wait is registered: in a branch of the same
        ``gather``.

        Args:
            step_id: Names the step.
            name: The event's name.
            match: Dotted paths in the event's data and the value that must be there, ``{"order.id": "7"}``. Not a
                registered secret, which events are kept without.
            timeout: How long to wait. Default: no limit.

        Returns:
            The event, or ``None`` after the timeout.
        """

    @overload
    async def gather(self, branch: Callable[[], Awaitable[T]], /) -> tuple[T]: ...
    @overload
    async def gather(
        self, first: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[In]], /
    ) -> tuple[T, In]: ...
    @overload
    async def gather(
        self,
        first: Callable[[], Awaitable[T]],
        second: Callable[[], Awaitable[In]],
        third: Callable[[], Awaitable[Out]],
        /,
    ) -> tuple[T, In, Out]: ...
    @overload
    async def gather(self, *branches: Callable[[], Awaitable[T]]) -> tuple[T, ...]: ...
    @abstractmethod
    async def gather(self, *branches: Callable[[], Awaitable[Any]]) -> tuple[Any, ...]:
        """Run branches concurrently; each may hold any number of steps.

        Returns:
            Their results, in the order of the arguments.

        Raises:
            ExceptionGroup: With the errors of the branches that failed, once every branch has ended.
        """

    def if_cancelled(self, fn: Callable[..., Any], *args: Any) -> AbstractContextManager[None]:
        """Have a body run if the run is cancelled inside a block, such as one that calls off what the block waits for.

        The body is no step and leaves no record; if it fails, that is logged. The worker that holds the run does it:
        nobody does if no worker is up, or on an engine that cancels by itself.

        Args:
            fn: The body, sync or async.
            args: Its arguments.
        """
        return nullcontext()

    def patched(self, patch_id: str) -> bool:
        """Return whether this run takes the new code of a patch, so that code can change under live runs.

        ``True`` for a run that reaches this place for the first time, ``False`` for one that was already past it when
        the patch was deployed. The answer is recorded: it is the same on every replay and at every place with this id.
        There is one exception: a branch of a ``gather`` that was past its place before the patch keeps the old code.

        Args:
            patch_id: Names the change.

        Raises:
            UnsupportedFeatureError: If the engine cannot do this.
        """
        reason = "it does not say how a run records that its code was patched"
        raise UnsupportedFeatureError(backend=type(self).__name__, feature=f"patched({patch_id!r})", reason=reason)
