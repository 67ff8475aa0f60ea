"""Step keys, and the rules about steps that are the same on every engine.

A key is the step id, numbered from its second use (``think``, ``think:1``). A branch of ``gather`` numbers its own
steps behind its position (``gather[0]/search``, ``gather:1[2]/search``), so no key depends on which branch was faster.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypeVar

from durably.core.attempts import Body, seconds
from durably.core.errors import ConcurrentStepError, DurablyError, NestedStepError
from durably.core.events import Event
from durably.core.ids import check_step_id
from durably.core.reference import FunctionRef
from durably.core.steps import Duration, StepAPI, _current

__all__ = ["Branch", "KeyedSteps", "Scope"]

T = TypeVar("T")
Branch = Callable[[], Awaitable[Any]]


class Scope:
    """Where keys are numbered: the run itself, or one branch of a ``gather``.

    Attributes:
        prefix: What the keys of this scope begin with, ``"gather[0]/"``; empty for the run.
        busy: The key of the step that is running here now, or ``None``.
        position: How many recorded steps of this scope were replayed.
        window: How many records the run held, at least, when the next step of this scope became reachable.
    """

    __slots__ = ("_counts", "busy", "position", "prefix", "window")

    def __init__(self, prefix: str = "", window: int = 0) -> None:
        self.prefix = prefix
        self.busy: str | None = None
        self.position = 0
        self.window = window
        self._counts: dict[str, int] = {}

    def key(self, step_id: str) -> str:
        """The key of the next use of a step id."""
        count = self._counts.get(step_id)
        if count is None:
            check_step_id(step_id)
            self._counts[step_id] = 1
            return self.prefix + step_id
        self._counts[step_id] = count + 1
        return f"{self.prefix}{step_id}:{count}"

    def branch(self, gather_key: str, index: int) -> Scope:
        """The scope of one branch."""
        return Scope(f"{gather_key}[{index}]/", self.window)


_scope: ContextVar[Scope | None] = ContextVar("durably_scope", default=None)


class KeyedSteps(StepAPI):
    """The part of ``StepAPI`` that does not depend on the engine: keys, arguments, and what is refused.

    An engine implements the methods with an underscore, which get finished keys.
    """

    def __init__(self) -> None:
        self._root = Scope()
        self._broken: DurablyError | None = None

    def _enter(self, step_id: str) -> Scope:
        inside = _current.get()
        if inside is not None:
            raise NestedStepError(step=step_id, inside=inside.key)
        if self._broken is not None:
            raise self._broken  # caught by the user's code the first time; it must not go on
        scope = _scope.get() or self._root
        if scope.busy is not None:
            self._broken = ConcurrentStepError(step=step_id)
            raise self._broken
        return scope

    async def run(  # type: ignore[override]  # the overloads' types are for callers
        self,
        step_id: str,
        fn: Callable[..., Any],
        *args: Any,
        output_type: Any = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
    ) -> Any:
        scope = self._enter(step_id)
        scope.busy = key = scope.key(step_id)
        try:
            return await self._run(scope, Body.of(key, fn, args, output_type, retries, timeout, at_most_once))
        finally:
            scope.busy = None

    async def invoke(
        self, step_id: str, function: FunctionRef[Any, Any], data: Any = None, *, timeout: Duration | None = None
    ) -> Any:
        scope = self._enter(step_id)
        scope.busy = key = scope.key(step_id)
        try:
            return await self._invoke(scope, key, function, data, seconds(timeout))
        finally:
            scope.busy = None

    async def send_event(self, step_id: str, *events: Event) -> list[str]:
        scope = self._enter(step_id)
        scope.busy = key = scope.key(step_id)
        try:
            return await self._send_event(scope, key, events)
        finally:
            scope.busy = None

    async def sleep(self, step_id: str, duration: Duration) -> None:
        scope = self._enter(step_id)
        scope.busy = key = scope.key(step_id)
        try:
            await self._sleep(scope, key, seconds(duration), None)
        finally:
            scope.busy = None

    async def sleep_until(self, step_id: str, when: datetime | float) -> None:
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise ValueError(f"step {step_id!r}: {when} has no time zone: use datetime.now(timezone.utc)")
            when = when.timestamp()
        scope = self._enter(step_id)
        scope.busy = key = scope.key(step_id)
        try:
            await self._sleep(scope, key, None, when)
        finally:
            scope.busy = None

    async def wait_for_event(
        self, step_id: str, name: str, *, match: Mapping[str, Any] | None = None, timeout: Duration | None = None
    ) -> Event | None:
        scope = self._enter(step_id)
        scope.busy = key = scope.key(step_id)
        try:
            return await self._wait_for_event(scope, key, name, dict(match or {}), seconds(timeout))
        finally:
            scope.busy = None

    async def gather(self, *branches: Branch) -> tuple[Any, ...]:
        scope = self._enter("gather")
        for branch in branches:
            if not callable(branch):
                raise TypeError(
                    f"gather takes functions, not {branch!r}: write step.gather(lambda: step.run(...), ...), so that "
                    "each branch can be given its own keys"
                )
        scope.busy = key = scope.key("gather")
        try:
            scopes = [scope.branch(key, index) for index in range(len(branches))]
            outcomes = await self._gather(
                scope, key, [self._in_scope(*pair) for pair in zip(scopes, branches, strict=True)]
            )
            scope.window = max([scope.window, *(each.window for each in scopes)])
        finally:
            scope.busy = None
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failed:
            raise ExceptionGroup(f"{len(failed)} of {len(outcomes)} branches of {key!r} failed", failed)
        return tuple(outcomes)

    def _in_scope(self, scope: Scope, branch: Branch) -> Branch:
        async def run() -> Any:
            token = _scope.set(scope)
            try:
                value = await branch()
                self._branch_ended(scope)
                return value
            finally:
                _scope.reset(token)

        return run

    def _branch_ended(self, scope: Scope) -> None:
        """Called when a branch has returned."""
        return

    @abstractmethod
    async def _run(self, scope: Scope, body: Body) -> Any: ...

    @abstractmethod
    async def _invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any: ...

    @abstractmethod
    async def _send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]: ...

    @abstractmethod
    async def _sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None: ...

    @abstractmethod
    async def _wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None: ...

    @abstractmethod
    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        """Run all branches to their end; the outcome of a failed one is its exception."""
