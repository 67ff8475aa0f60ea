"""Ambient inputs: what code can read although no record holds it. The harness makes them differ from life to life.

The wall clock, the order of a set and the shared random generator are the same, or nearly so, in two runs of one
test, but not in a process that starts again on another day. Code outside a step that depends on one of them takes
another way in recovery; to find that out, it must be given another value.
"""

from __future__ import annotations

import builtins
import datetime as datetime_module
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from durably.core import Agent, Function
from durably.core.steps import _current
from durably.testing.source_lines import users_line

__all__ = ["OFFSETS", "AmbientInputs"]

CLOCK, SET_ORDER, RANDOMNESS = "the clock", "the order of a set", "the random generator"

DAY = 86_400.0
OFFSETS = (0.0, DAY + 1, DAY / 2 + 60, 400 * DAY + 3600)
"""How far the clock is ahead in the first lives: another date and second; another half of the day; another year."""


@dataclass(frozen=True, kw_only=True)
class AmbientInputs:
    """Values for the ambient inputs of one life.

    Attributes:
        clock: Seconds the wall clock is ahead.
        order: Fixes the order in which a ``set(...)`` made by durable code is gone through, or ``None`` for its own.
        randomness: Seeds the shared generator of ``random``.
        lines: Where code outside steps looked at the clock and at the order of a set, by the words of ``single``; it
            is filled while the values are applied.
    """

    clock: float = 0.0
    order: int | None = None
    randomness: int = 0
    lines: dict[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of_life(cls, life: int) -> AmbientInputs:
        """Values unlike those of the lives before it."""
        return cls(clock=OFFSETS[life % 4] + life // 4 * 7.3 * DAY, order=life, randomness=life)

    def single(self) -> dict[str, AmbientInputs]:
        """These values one at a time, by the words for what differs."""
        baseline = AmbientInputs.of_life(0)
        return {
            CLOCK: replace(baseline, clock=self.clock, lines={}),
            SET_ORDER: replace(baseline, order=self.order, lines={}),
            RANDOMNESS: replace(baseline, randomness=self.randomness, lines={}),
        }

    def _look(self, words: str) -> None:
        """Note who looks at an ambient input, the first time that code outside steps does."""
        if words not in self.lines and _current.get() is None and (line := users_line(2)):
            self.lines[words] = line

    @contextmanager
    def applied(self, functions: Iterable[Function[Any, Any]]) -> Iterator[None]:
        """Let code see these values."""
        with ExitStack() as undo:
            state = random.getstate()
            undo.callback(random.setstate, state)
            random.seed(f"durably {self.randomness}")
            if self.clock:
                # `time.time` is looked up in its module at each call; `datetime` is bound by name where it is imported,
                # so it is exchanged in each module whose code runs outside steps.
                self._shift_time(undo)
            for scope in _scopes(functions):
                self._apply_to(scope, undo)
            yield

    def _shift_time(self, undo: ExitStack) -> None:
        now, now_ns = time.time, time.time_ns

        def shifted() -> float:
            self._look(CLOCK)
            return now() + self.clock

        _swap(time.__dict__, "time", shifted, undo)
        _swap(time.__dict__, "time_ns", lambda: now_ns() + int(self.clock * 1e9), undo)

    def _apply_to(self, scope: dict[str, Any], undo: ExitStack) -> None:
        if self.order is not None:
            for name, kind in (("set", builtins.set), ("frozenset", builtins.frozenset)):
                if name not in scope:  # a module may have a `set` of its own
                    _swap(scope, name, _shuffled(kind, self.order, self._look), undo)
        if self.clock:
            for name, value in list(scope.items()):
                if value is datetime_module.datetime:
                    _swap(scope, name, _shifted(self.clock, self._look), undo)


def _scopes(functions: Iterable[Function[Any, Any]]) -> list[dict[str, Any]]:
    """The modules whose code runs outside steps: those of the functions and of the functions they call."""
    waiting, known, found = list(functions), set[str](), dict[int, dict[str, Any]]()
    while waiting:
        each = waiting.pop()
        if each.id in known:
            continue
        known.add(each.id)
        waiting += each.uses
        names = getattr(each.handler, "__globals__", None)
        if names is not None and not isinstance(each, Agent):  # an agent's loop is ours; its tools run in steps
            found[id(names)] = names
    return list(found.values())


_MISSING = object()


def _swap(scope: dict[str, Any], name: str, value: Any, undo: ExitStack) -> None:
    before = scope.get(name, _MISSING)

    def restore() -> None:
        if before is _MISSING:
            scope.pop(name, None)
        else:
            scope[name] = before

    undo.callback(restore)
    scope[name] = value


def _shifted(seconds: float, look: Callable[[str], None]) -> type[datetime_module.datetime]:
    real = datetime_module.datetime

    class Looks(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Shifted(datetime_module.datetime, metaclass=Looks):
        @classmethod
        def now(cls, tz: datetime_module.tzinfo | None = None) -> Any:
            look(CLOCK)
            return real.now(tz) + datetime_module.timedelta(seconds=seconds)

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            return handler(real)

    Shifted.__name__ = Shifted.__qualname__ = "datetime"
    return Shifted


def _shuffled(kind: Any, seed: int, look: Callable[[str], None]) -> Any:
    class Looks(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, kind)

    class Shuffled(kind, metaclass=Looks):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            look(SET_ORDER)
            values = list(kind.__iter__(self))
            values.sort(key=lambda value: (repr(value), id(value)))
            # Rotated, not shuffled: two lives then never see the same order, unless there is but one.
            turn = seed % len(values) if values else 0
            return iter(values[turn:] + values[:turn])

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            arguments = getattr(source, "__args__", ())
            return handler(kind[arguments] if arguments else kind)

    Shuffled.__name__ = Shuffled.__qualname__ = kind.__name__
    return Shuffled
