"""Step keys, and the rules about steps that are the same on every engine.

A key is the step id, numbered from its second use (``think``, ``think:1``). A branch of ``gather`` numbers its own
steps behind its position (``gather[0]/search``, ``gather:1[2]/search``), so no key depends on which branch was faster.

`KeyedSteps` is the ``StepAPI`` that users call. It has a `StepEngine`, which gets finished keys and does the work.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from durably.core.attempts import StepCall
from durably.core.contained_errors import interrupt_process
from durably.core.durations import duration_seconds, moment, timeout_seconds
from durably.core.errors import (
    ConcurrentStepError,
    DurablyError,
    NestedStepError,
    NonDeterminismError,
    StepCancelledError,
    TooManyStepsError,
    UnsupportedFeatureError,
)
from durably.core.events import Event, check_events
from durably.core.function_attempts import FunctionSteps
from durably.core.ids import check_event_name, check_patch_id, check_step_id
from durably.core.mistakes import LEFT_OUT, check_body, check_given, check_invoked, check_match
from durably.core.reference import FunctionRef
from durably.core.steps import Duration, _current

__all__ = ["Branch", "KeyedSteps", "Scope", "StepEngine"]

T = TypeVar("T")
Branch = Callable[[], Awaitable[Any]]


class Scope:
    """Where keys are numbered: the run itself, or one branch of a ``gather``.

    Attributes:
        prefix: What the keys of this scope begin with, ``"gather[0]/"``; empty for the run.
        parent: The scope that its gather stands in, or ``None`` for the run.
        busy: The key of the step that is running here now, or ``None``.
        position: How many recorded steps of this scope were replayed.
        window: How many records the run held, at least, when the next step of this scope became reachable.
        refusal: Why the code of this run may not go on, or ``None``; only the root's counts.
    """

    __slots__ = ("_above", "_counts", "busy", "parent", "position", "prefix", "refusal", "window")

    def __init__(self, prefix: str = "", window: int = 0, parent: Scope | None = None) -> None:
        self.prefix = prefix
        self.parent = parent
        self._above = None if parent is None else parent.root  # a root that had itself would hold itself in memory
        self.busy: str | None = None
        self.position = 0
        self.window = window
        self.refusal: DurablyError | None = None
        self._counts: dict[str, int] = {}

    @property
    def root(self) -> Scope:
        """The scope of the run itself."""
        return self._above or self

    def key(self, step_id: str) -> str:
        """The key of the next use of a step id."""
        count = self._counts.get(step_id) if isinstance(step_id, str) else None
        if count is None:
            check_step_id(step_id)
            self._counts[step_id] = 1
            return self.prefix + step_id
        self._counts[step_id] = count + 1
        return f"{self.prefix}{step_id}:{count}"

    def branch(self, gather_key: str, index: int) -> Scope:
        """The scope of one branch."""
        return Scope(f"{gather_key}[{index}]/", self.window, self)


_scope: ContextVar[Scope | None] = ContextVar("durably_scope", default=None)


class StepEngine(ABC):
    """What an engine does for each kind of step: the port that a backend implements.

    Each method gets the scope and the finished key of the step. It answers from the run's records where it can, does
    the work where it must, and raises what the caller is to get. ``KeyedSteps`` has refused before what no engine
    allows, and never lets code go on after ``NonDeterminismError``.

    Attributes:
        most_steps: How many steps one run may have, or ``None``.
        most_branches: How many branches of one run may be under way at a time, or ``None``.
    """

    most_steps: int | None = None
    most_branches: int | None = None

    @abstractmethod
    async def run(self, scope: Scope, call: StepCall) -> Any:
        """Give the recorded value of a step, or run its body, record the value and give that."""

    @abstractmethod
    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        """Start a child run, once for each key, and give its result; ``timeout`` is in seconds."""

    @abstractmethod
    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        """Hand over events, once for each key; the ids they have."""

    @abstractmethod
    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        """Wait ``duration`` seconds from the first time on, or ``until`` a moment in seconds since 1970."""

    @abstractmethod
    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        """Give the first matching event since the step began, or ``None`` after ``timeout`` seconds."""

    @abstractmethod
    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        """Run all branches to their end; what each returns, in order. A branch that fails returns its exception."""

    @abstractmethod
    def is_replaying(self, scope: Scope) -> bool:
        """Whether the code of a scope was here before: what it logs now has been logged already."""

    @abstractmethod
    def check_end(self, scope: Scope) -> None:
        """Refuse the end of a scope's code where recorded steps are left over.

        Raises:
            NonDeterminismError: If some are.
        """

    def patched(self, scope: Scope, patch_id: str) -> bool:
        """Whether the code of a scope goes by a patch: as recorded, or decided and to be recorded now.

        Raises:
            UnsupportedFeatureError: If the engine cannot do this.
        """
        reason = "it does not say how a run records that its code was patched"
        raise UnsupportedFeatureError(backend=type(self).__name__, feature=f"patched({patch_id!r})", reason=reason)

    def is_ending(self) -> bool:
        """Whether the engine itself cancels the code now, so that a cancellation is its own and not the code's.

        An engine that does not know takes every cancellation for its own.
        """
        return True

    def records_input(self) -> bool:
        """Whether the run may begin with a step that judges its input. One that began without it must not."""
        return False

    def redact(self, text: str) -> str:
        """Mask the registered secrets in a text. An engine that has none returns it as it is."""
        return text

    def before_step(self, scope: Scope) -> None:
        """Called before each step, to unwind code that may not go on. Does nothing unless an engine needs it."""
        return


class KeyedSteps(FunctionSteps):
    """The steps that a durable function calls: keys, arguments and refusals here, the work in the engine.

    Args:
        engine: What runs, records and replays each step.

    Attributes:
        to_call_off: The bodies that are to run if the run is cancelled where its code is now.
    """

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine
        self._most_steps = engine.most_steps or math.inf
        self._steps = 0
        self._branches = 0
        self.root = Scope()
        self.to_call_off: list[StepCall] = []

    @property
    def refusal(self) -> DurablyError | None:
        return self.root.refusal

    @property
    def replaying(self) -> bool:
        return self._engine.is_replaying(_scope.get() or self.root)

    def is_ending(self) -> bool:
        return self._engine.is_ending()

    def records_input(self) -> bool:
        return self._engine.records_input()

    def check_end(self) -> None:
        if self.root.refusal is not None:
            raise self.root.refusal
        self._check_scope(self.root)

    async def run(  # type: ignore[override]  # the overloads' types are for callers
        self,
        step_id: str,
        fn: Callable[..., Any] = LEFT_OUT,
        *args: Any,
        output_type: Any = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        crash_limit: int | None = None,
    ) -> Any:
        if fn is LEFT_OUT or not isinstance(step_id, str):
            check_body(step_id, fn)

        def act(scope: Scope, key: str) -> Awaitable[Any]:
            call = StepCall.of(key, fn, args, output_type, retries, timeout, at_most_once, crash_limit)
            return self._engine.run(scope, call)

        return await self._perform(step_id, act)

    async def invoke(
        self,
        step_id: str,
        function: FunctionRef[Any, Any] = LEFT_OUT,
        data: Any = None,
        *,
        timeout: Duration | None = None,
    ) -> Any:
        check_invoked(step_id, function)
        limit = timeout_seconds(timeout, f"step {step_id!r}: timeout")
        return await self._perform(step_id, lambda scope, key: self._engine.invoke(scope, key, function, data, limit))

    async def send_event(self, step_id: str, *events: Event) -> list[str]:
        check_events(events, self._engine.redact, step=step_id)
        return await self._perform(step_id, lambda scope, key: self._engine.send_event(scope, key, events))

    async def sleep(self, step_id: str, duration: Duration = LEFT_OUT) -> None:
        check_given("sleep", step_id, duration, f"'pause', {step_id!r}")
        delay = duration_seconds(duration, f"step {step_id!r}: the duration")
        await self._perform(step_id, lambda scope, key: self._engine.sleep(scope, key, delay, None))

    async def sleep_until(self, step_id: str, when: datetime | float | str = LEFT_OUT) -> None:
        check_given("sleep_until", step_id, when, f"'pause', {step_id!r}")
        until = moment(when, f"step {step_id!r}: the time")
        await self._perform(step_id, lambda scope, key: self._engine.sleep(scope, key, None, until))

    async def wait_for_event(
        self,
        step_id: str,
        name: str = LEFT_OUT,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
    ) -> Event | None:
        check_given("wait_for_event", step_id, name, f"'wait', {step_id!r}")
        wanted = check_match(step_id, match, self._engine.redact)
        check_event_name(name)
        limit = timeout_seconds(timeout, f"step {step_id!r}: timeout")
        return await self._perform(
            step_id, lambda scope, key: self._engine.wait_for_event(scope, key, name, wanted, limit)
        )

    @contextmanager
    def if_cancelled(self, fn: Callable[..., Any], *args: Any) -> Iterator[None]:
        call = StepCall.of(f"durably:cancelled:{len(self.to_call_off)}", fn, args)
        self.to_call_off.append(call)
        try:
            yield
        except Exception:
            self.to_call_off.remove(call)
            raise
        else:  # whatever else unwinds the code may be the cancellation
            self.to_call_off.remove(call)

    def patched(self, patch_id: str) -> bool:
        check_patch_id(patch_id)
        return self._engine.patched(self._scope(patch_id), patch_id)

    async def gather(self, *branches: Branch) -> tuple[Any, ...]:
        for branch in branches:
            if not callable(branch):
                raise TypeError(
                    f"gather takes functions, not {branch!r}: write step.gather(lambda: step.run(...), ...), so that "
                    "each branch can be given its own keys"
                )
        return await self._perform("gather", lambda scope, key: self._gather(scope, key, branches))

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> tuple[Any, ...]:
        scopes = [scope.branch(key, index) for index in range(len(branches))]
        self._branches += len(branches)
        try:
            most = self._engine.most_branches
            if most is not None and self._branches > most:
                self._refuse_more(key, "branches at a time", self._branches, most)
            outcomes = await self._engine.gather(
                scope, key, [self._in_scope(*pair) for pair in zip(scopes, branches, strict=True)]
            )
        finally:
            self._branches -= len(branches)
        scope.window = max([scope.window, *(each.window for each in scopes)])
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failed:
            raise ExceptionGroup(f"{len(failed)} of {len(outcomes)} branches of {key!r} failed", failed)
        return tuple(outcomes)

    def _in_scope(self, scope: Scope, branch: Branch) -> Branch:
        async def run() -> Any:
            token = _scope.set(scope)
            try:
                value = await branch()
                self._check_scope(scope)
                return value
            except Exception as error:
                return error  # an outcome: the other branches go on
            except KeyboardInterrupt as error:
                raise interrupt_process() from error
            finally:
                with suppress(ValueError):  # thrown away with its task, by whoever collects it: that context is another
                    _scope.reset(token)

        return run

    async def _perform(self, step_id: str, act: Callable[[Scope, str], Awaitable[T]]) -> T:
        """Give one step its key, and keep its scope busy while it lasts."""
        scope = self.enter(step_id)
        self._steps += 1
        if self._steps > self._most_steps:
            self._refuse_more(step_id, "steps in one run", self._steps, self._engine.most_steps)
        scope.busy = key = scope.key(step_id)
        try:
            return await act(scope, key)
        except NonDeterminismError as error:
            # Noted as well as raised: the user's code may catch it, and must not go on all the same.
            self.root.refusal = error
            raise
        except asyncio.CancelledError:
            if self._engine.is_ending():
                raise
            # A timeout of the user's around a step: how far the code comes would depend on how quick the machine is.
            self.root.refusal = StepCancelledError(step=key)
            raise self.root.refusal from None
        finally:
            scope.busy = None

    def _refuse_more(self, step: str, what: str, count: int, limit: int | None) -> NoReturn:
        # Noted as well as raised: whether there are too many must not depend on what the code does about it.
        self.root.refusal = TooManyStepsError(step=step, what=what, count=count, limit=limit or 0)
        raise self.root.refusal

    def enter(self, step_id: str) -> Scope:
        """The scope in which a step may begin now.

        Raises:
            NestedStepError: If the body of a step is running.
            ConcurrentStepError: If another step of this branch is.
        """
        scope = self._scope(step_id)
        if scope.busy is not None:
            self.root.refusal = ConcurrentStepError(step=step_id)
            raise self.root.refusal
        self._engine.before_step(scope)
        return scope

    def _scope(self, step_id: str) -> Scope:
        """The scope of the code that asks now; raises NestedStepError, or why the code may not go on."""
        inside = _current.get()
        if inside is not None:
            raise NestedStepError(step=step_id, inside=inside.key)
        if self.root.refusal is not None:
            raise self.root.refusal
        return _scope.get() or self.root

    def _check_scope(self, scope: Scope) -> None:
        try:
            self._engine.check_end(scope)
        except NonDeterminismError as error:
            self.root.refusal = error
            raise
