"""What is tested: the function and its world, built afresh for each experiment, and what goes with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durably.core import DefinitionError, Event, Function, SerializationError
from durably.core.serialization import codec_for
from durably.testing.crash.engines import Engine, Store

__all__ = ["CrashTest", "Scenario", "Subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What one experiment tests: the function, and the world it acts on."""

    function: Function[Any, Any]
    world: Any = None


@dataclass(frozen=True)
class CrashTest:
    """What a test marked ``crashtest`` returns: something to crash, and the world it acts on.

    Args:
        function: The function or agent.
        data: Its input.
        state: Reads the world, which the test made, at the end.
        events: The events that answer waits; see :func:`~durably.testing.crash_matrix`.
        functions: Further functions the backend must serve.
    """

    function: Function[Any, Any]
    data: Any = None
    state: Callable[[], Any] | None = None
    events: Sequence[Event] = ()
    functions: Sequence[Function[Any, Any]] = ()

    @classmethod
    def made_by(cls, factory: Callable[..., Any], path: Path | None = None) -> CrashTest | None:
        """What the body of a test gives; ``None`` if it is none of the forms."""
        if inspect.iscoroutinefunction(factory):
            return None
        if path is None and _wants_path(factory):
            with Store() as store:
                return cls.made_by(factory, store.path)
        made = factory(path) if _wants_path(factory) else factory()
        if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Function):
            made = cls(*made)
        return made if isinstance(made, cls) else None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What every experiment of one matrix has in common. See :func:`~durably.testing.crash_matrix` for the fields.

    ``change`` gives the subject of each life from the first one, for code that is deployed anew in between.
    """

    target: Function[Any, Any] | Callable[..., Any]
    data: Any = None
    engine: Engine
    functions: Sequence[Function[Any, Any]] = ()
    state: Callable[[Any], Any] | None = None
    events: Sequence[Event] = ()
    secrets: Sequence[str] = ()
    seed: int = 0
    deadline: float = 30.0
    change: Callable[[Subject, int], Subject] | None = None

    def build(self, store: Store) -> Subject:
        """The function and its world, fresh if the target is a factory.

        Raises:
            DefinitionError: If there is no function in what it gave.
        """
        if isinstance(self.target, Function):
            if self.state is not None:
                raise DefinitionError(
                    "state= reads the world of one experiment, so each needs a fresh one: instead of the "
                    "agent, give a function that makes both and returns (agent, world)"
                )
            return Subject(self.target)
        if not callable(self.target) or inspect.iscoroutinefunction(self.target):
            raise DefinitionError(
                f"{self.target!r} cannot be crashed: give an agent, a durable function, or a function (with 'def') "
                "that makes one"
            )
        made = self.target(store.path) if _wants_path(self.target) else self.target()
        if isinstance(made, CrashTest):
            return Subject(made.function, made)
        subject = Subject(*made) if isinstance(made, tuple) else Subject(made)
        if not isinstance(subject.function, Function):
            raise DefinitionError(f"the target gave {made!r}: return an agent or function, or (agent, world)")
        return subject

    async def look(self, subject: Subject) -> str | None:
        """What the world has come to, as text that can be compared, or ``None`` if nobody can tell."""
        if self.state is not None:
            value = self.state(subject.world)
        elif isinstance(subject.world, CrashTest) and subject.world.state is not None:
            value = subject.world.state()
        else:
            return None
        if inspect.isawaitable(value):
            value = await value
        with suppress(SerializationError):
            return codec_for(Any).encode(value, step="")
        return repr(value)

    def all_functions(self, subject: Subject) -> list[Function[Any, Any]]:
        """What the backend must run."""
        own = subject.world.functions if isinstance(subject.world, CrashTest) else ()
        return [subject.function, *(each for each in (*self.functions, *own) if each is not subject.function)]


def _wants_path(factory: Callable[..., Any]) -> bool:
    parameters = inspect.signature(factory).parameters.values()
    return any(each.default is each.empty and each.kind is not each.VAR_KEYWORD for each in parameters)
