"""What tools and instructions may know of the run that they work for, beside what the model says.

Owns: the value that they are handed, how it travels to the body of a step, and which parameter asks for it. Does not
own: the agent's ``context_type`` (``agent.py``), and the steps (``tools.py``).
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Union, get_args, get_origin

from typing_extensions import TypeVar

from durably.core.annotations import resolve_hints
from durably.core.budget import Budget
from durably.core.context import current_run
from durably.core.errors import DefinitionError, NonRetriableError
from durably.core.serialization import Codec, codec_for, digest
from durably.core.steps import StepAPI, current_step

__all__ = ["AskedContext", "RunContext", "ToolContext", "asked_context", "fits", "instructions_context", "type_label"]

C = TypeVar("C", default=Any)


@dataclass(frozen=True, kw_only=True)
class ToolContext(Generic[C]):
    """The context of a run, for tools and instructions with a parameter ``ctx: ToolContext[Customer]``.

    The model does not see the parameter.

    Attributes:
        context: The ``context`` of the run's :class:`~durably.core.AgentInput`, of the agent's ``context_type``.
        run_id: The run.
        session_key: The session of the run, or ``None``.
        resources: The backend's ``resources=``, by name. Never recorded.
    """

    context: C
    run_id: str
    session_key: str | None
    resources: Mapping[str, Any]
    _step: StepAPI | None = None

    @property
    def step(self) -> StepAPI:
        """The durable steps of the run, for a tool that is declared ``@tool(steps=True)``.

        Raises:
            NonRetriableError: If the code runs inside a step, as that of all other tools and of instructions does.
        """
        if self._step is None:
            raise NonRetriableError(
                "ctx.step is for tools that run steps of their own, and this code runs inside a step: declare it with "
                "@tool(steps=True)"
            )
        return self._step


@dataclass(frozen=True)
class RunContext:
    """What the loop knows of its run, as it travels to the bodies that ask for it.

    A record keeps its digest: the run's input holds the context already.

    Args:
        context: The context as JSON data, or ``None``.
        session_key: The conversation, or ``None``.
        depth: How many delegations led to the run.
        budget: What each agent that is asked may spend of the run's budget. It follows from what is recorded, and is no
            part of the digest.
    """

    context: Any = None
    session_key: str | None = None
    depth: int = 0
    budget: Budget | None = None

    @cached_property
    def _digest(self) -> str:
        return digest(json.dumps([self.context, self.session_key, self.depth], sort_keys=True))

    def __digest__(self) -> str:
        """Return a text that is equal for equal contexts. See :class:`durably.core.serialization.Digested`."""
        return self._digest


@dataclass(frozen=True)
class AskedContext:
    """A parameter that asks for a :class:`ToolContext`.

    Attributes:
        parameter: Its name.
        type: The type of the context that it says.
        codec: Reads the context: by the agent's ``context_type`` once an agent has the tool.
    """

    parameter: str
    type: Any
    codec: Codec

    def given(self, run: RunContext | None, step: StepAPI | None = None) -> dict[str, Any]:
        """Return the argument for the parameter.

        Args:
            run: What is known of the run.
            step: The steps of the run, for code that runs in the run itself; ``None`` inside the body of a step.
        """
        info = current_step() if step is None else current_run()
        run = run or RunContext()
        made = ToolContext(
            context=self.codec.rebuild(run.context),
            run_id=info.run_id,
            session_key=run.session_key,
            resources=info.resources,
            _step=step,
        )
        return {self.parameter: made}

    def bound(self, codec: Codec, where: str) -> AskedContext:
        """Return this parameter of an agent with a ``context_type``.

        Args:
            codec: Reads the agent's context.
            where: What an error calls the agent and the tool.

        Raises:
            DefinitionError: If the agent's context is not of the parameter's type.
        """
        if not fits(codec.type, self.type):
            has = "none" if codec.type is Any else f"context_type={type_label(codec.type)}"
            raise DefinitionError(
                f"{where} asks for ToolContext[{type_label(self.type)}], and the agent has {has}: make the two the same"
            )
        return AskedContext(self.parameter, self.type, codec)


def asked_context(hints: Mapping[str, object], where: str) -> AskedContext | None:
    """Return the parameter that is annotated with :class:`ToolContext`, or ``None``.

    Args:
        hints: The annotations of a function, as types.
        where: What an error calls the function.

    Raises:
        DefinitionError: If there are two.
    """
    found = [
        (name, hint)
        for name, hint in hints.items()
        if name != "return" and (hint is ToolContext or get_origin(hint) is ToolContext)
    ]
    if len(found) > 1:
        raise DefinitionError(f"{where}: the parameters {found[0][0]!r} and {found[1][0]!r} are both a ToolContext")
    if not found:
        return None
    wanted = (get_args(found[0][1]) or (Any,))[0]
    return AskedContext(found[0][0], wanted, codec_for(wanted).check())


def instructions_context(
    instructions: Callable[..., object], names: Mapping[str, object], where: str
) -> AskedContext | None:
    """Return the parameter by which instructions ask for a :class:`ToolContext`, or ``None`` if they take nothing.

    Args:
        instructions: The callable.
        names: Local names that its annotations may use.
        where: What an error calls it.

    Raises:
        DefinitionError: If they need another argument.
    """
    try:
        parameters = inspect.signature(instructions).parameters.values()
    except (ValueError, TypeError):  # a callable of another language's; it takes nothing, or says so when it is called
        return None
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each.name for each in parameters if each.default is each.empty and each.kind not in rest]
    if not needed:
        return None
    asked = asked_context(resolve_hints(instructions, names, where), where)
    if asked is None or needed != [asked.parameter]:
        raise DefinitionError(
            f"{where} take no argument, or one that is annotated: 'def instructions(ctx: ToolContext[Customer]) -> str'"
        )
    return asked


def fits(given: object, wanted: object) -> bool:
    """Return whether every value of one type is one of another, as far as the two say."""
    if wanted is Any or given == wanted:
        return True
    if _is_union(given):
        return all(fits(each, wanted) for each in get_args(given))
    if _is_union(wanted):
        return any(fits(given, each) for each in get_args(wanted))
    return isinstance(given, type) and wanted in given.__mro__


def _is_union(tp: object) -> bool:
    return get_origin(tp) in (Union, types.UnionType)


def type_label(tp: object) -> str:
    """Return the name by which an error calls a type."""
    return str(getattr(tp, "__name__", tp))
