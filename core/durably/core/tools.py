"""Tools: plain functions that a model may call."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, overload

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic_core import PydanticSerializationError, to_json

from durably.core.errors import DefinitionError, StepError, ToolError
from durably.core.functions import Function, resolve_hints
from durably.core.messages import ContentPart, FilePart, TextPart, ToolCall
from durably.core.model import ToolSpec, Usage
from durably.core.serialization import codec_for
from durably.core.steps import Duration, StepAPI

__all__ = ["Effect", "Tool", "ToolOutcome", "check_tool_name", "tool"]

Effect = Literal["pure", "idempotent", "at_most_once"]
"""What happens when a tool's body runs twice: nothing at all; nothing more, thanks to its idempotency key; or it must
not happen, so that a crash in it is reported as *interrupted* instead of repeated."""


TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolOutcome(BaseModel):
    """What a tool call came to. The step ``tool-<name>`` records it; plain text is recorded as just that.

    Attributes:
        content: What the model reads.
        is_error: The tool did not do what was asked.
        usage: The tokens another agent spent on it, or ``None`` if none was asked.
        cost: US dollars for them, or ``None`` where that is not known.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    content: str | list[ContentPart]
    is_error: bool = Field(default=False, exclude_if=lambda is_error: not is_error)
    usage: Usage | None = Field(default=None, exclude_if=lambda usage: usage is None)
    cost: float | None = Field(default=None, exclude_if=lambda cost: cost is None)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model may call. Made by :func:`tool`.

    Attributes:
        spec: What the model sees of it.
        fn: The function.
        arguments: The pydantic model of its arguments.
        retries: How often an unexpected exception is retried; ``None``: as often as the agent's steps.
        timeout: How long one attempt may take.
        effect: What a second execution would do. See :data:`Effect`.
        on_error: What to do when the attempts are used up: ``"report"`` to the model or ``"raise"``.
        requires_approval: Whether a person must say yes to each call. See :mod:`durably.core.approval`.
        approval_timeout: How long to wait for that; ``None``: for ever. No answer is a no.
        uses: Durable functions it calls, registered along with the agent.
    """

    spec: ToolSpec
    fn: Callable[..., Any]
    arguments: type[BaseModel]
    result_type: Any = Any
    retries: int | None = None
    timeout: Duration | None = None
    effect: Effect = "idempotent"
    on_error: Literal["report", "raise"] = "report"
    requires_approval: bool = False
    approval_timeout: Duration | None = None
    uses: tuple[Function[Any, Any], ...] = ()

    @cached_property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.fn)

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.spec.name

    def check(self, call: ToolCall) -> str | None:
        """What is wrong with a call's arguments, in words for the model, or ``None``."""
        try:
            self.arguments.model_validate(call.arguments)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors()]
            return f"invalid arguments for {self.name}: " + "; ".join(lines)
        return None

    async def act(self, step: StepAPI, call: ToolCall, depth: int = 0) -> str | ToolOutcome:
        """Answer one call with valid arguments, as a durable step.

        Args:
            step: The steps of the run.
            call: What the model asks for.
            depth: How many delegations led to the agent that has this tool.
        """
        body: Callable[..., Any] = self.run if self.is_async else self.run_sync
        try:
            outcome: str | ToolOutcome = await step.run(
                f"tool-{self.name}",
                body,
                call.arguments,
                retries=self.retries,
                timeout=self.timeout,
                at_most_once=self.effect == "at_most_once",
            )
            return outcome
        except StepError as error:
            if self.on_error == "raise":
                raise
            return ToolOutcome(content=str(error), is_error=True)

    async def run(self, arguments: dict[str, Any]) -> str | ToolOutcome:
        """The body of the step, for an async tool."""
        try:
            return self._outcome(await self.fn(**self._parse(arguments)))
        except ToolError as error:
            return ToolOutcome(content=str(error), is_error=True)

    def run_sync(self, arguments: dict[str, Any]) -> str | ToolOutcome:
        """The body of the step, for a sync tool."""
        try:
            return self._outcome(self.fn(**self._parse(arguments)))
        except ToolError as error:
            return ToolOutcome(content=str(error), is_error=True)

    def _parse(self, arguments: dict[str, Any]) -> dict[str, Any]:
        parsed = self.arguments.model_validate(arguments)
        return {name: getattr(parsed, name) for name in self.arguments.model_fields}

    def _outcome(self, value: Any) -> str | ToolOutcome:
        if isinstance(value, str):
            return value
        if isinstance(value, TextPart | FilePart):
            return ToolOutcome(content=[value])
        if isinstance(value, list) and value and all(isinstance(part, TextPart | FilePart) for part in value):
            return ToolOutcome(content=value)
        return codec_for(self.result_type).encode(value, step=f"tool-{self.name}")


@overload
def tool(fn: Callable[..., Awaitable[Any]] | Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    retries: int | None = None,
    timeout: Duration | None = None,
    effect: Effect = "idempotent",
    on_error: Literal["report", "raise"] = "report",
    requires_approval: bool = False,
    approval_timeout: Duration | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    **options: Any,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function, sync or async, a tool: its name, docstring and type hints are what the model sees.

    A parameter is described with ``Annotated[str, Field(description="...")]``. Invalid arguments and ``ToolError``
    go back to the model as an error result; any other exception is retried as a step, then reported.

    Args:
        fn: The function; left out when options are given.
        name: Left out, the function's.
        description: Left out, the docstring.
        options: ``retries``, ``timeout`` (seconds for one attempt), ``effect``, ``on_error``, ``requires_approval`` and
            ``approval_timeout``: see :class:`Tool`.

    Raises:
        DefinitionError: If a parameter has no type hint, no JSON schema, or a default that is not JSON.
    """
    names = sys._getframe(1).f_locals

    def decorate(fn: Callable[..., Any]) -> Tool:
        return _define(fn, names, name or str(getattr(fn, "__name__", "")), description, options)

    return decorate if fn is None else decorate(fn)


def _define(
    fn: Callable[..., Any], names: dict[str, Any], name: str, description: str | None, options: dict[str, Any]
) -> Tool:
    where = f"tool {name!r}"
    check_tool_name(name)
    if options.get("effect", "idempotent") not in ("pure", "idempotent", "at_most_once"):
        raise DefinitionError(f"{where}: effect {options['effect']!r}: use 'pure', 'idempotent' or 'at_most_once'")
    if options.get("approval_timeout") is not None and not options.get("requires_approval"):
        raise DefinitionError(f"{where}: approval_timeout= says how long to wait for requires_approval=True; add it")
    hints = resolve_hints(fn, names, where)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(f"{where}: parameter {parameter} cannot be given by name; spell each parameter out")
        if parameter.name not in hints:
            raise DefinitionError(
                f"{where}: parameter {parameter.name!r} has no type hint; the model needs one: '{parameter.name}: str'"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        if default is not ...:
            _check_default(default, f"{where}: the default of parameter {parameter.name!r}")
        fields[parameter.name] = (hints[parameter.name], default)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a parameter may be named as a method of BaseModel
            arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
            schema = arguments.model_json_schema()
    except (PydanticUserError, NameError, TypeError) as error:
        raise DefinitionError(f"{where}: no JSON schema for its parameters: {error}") from error
    schema.pop("title", None)
    spec = ToolSpec(name=name, description=description or inspect.getdoc(fn) or "", parameters=schema)
    made = Tool(spec=spec, fn=fn, arguments=arguments, result_type=hints.get("return", Any))
    return replace(made, **options)


def check_tool_name(name: str) -> None:
    """Refuse a name that some provider would refuse.

    Raises:
        DefinitionError: If it is not 1 to 64 letters, digits, ``_`` and ``-``.
    """
    if not TOOL_NAME.fullmatch(name):
        raise DefinitionError(
            f"tool {name!r}: providers want a name of 1 to 64 letters, digits, '_' and '-', such as name='look_up'"
        )


def _check_default(default: Any, what: str) -> None:
    try:
        to_json(default)
    except PydanticSerializationError as error:
        raise DefinitionError(f"{what} cannot be written as JSON ({error}): use None or a JSON value") from None
