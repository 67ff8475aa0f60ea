"""Tools: plain functions that a model may call.

Owns: how a function becomes a tool, and how one call becomes a durable step. Does not own: tools that an agent answers
(``delegation.py``), and how a person is asked (``approval.py``).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypedDict, Unpack, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from durably.core.annotations import resolve_hints
from durably.core.errors import DefinitionError, StepError, ToolError
from durably.core.functions import Function
from durably.core.messages import ContentPart, FilePart, JSONObject, TextPart, ToolCall
from durably.core.model import ToolSpec, Usage
from durably.core.serialization import codec_for
from durably.core.steps import Duration, StepAPI
from durably.core.tool_arguments import arguments_model

__all__ = ["Effect", "Tool", "ToolOptions", "ToolOutcome", "check_tool_name", "tool"]

Effect = Literal["pure", "idempotent", "at_most_once"]
"""What a second execution of a tool's body would do.

``pure``: the tool only reads, so nothing. ``idempotent``: nothing more, since the receiver knows the idempotency key.
``at_most_once``: harm. The body is never run twice; a crash inside it is reported to the model as *interrupted*.
"""


TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolOutcome(BaseModel):
    """The outcome of a tool call, as the step ``tool-<name>`` records it. Plain text is recorded as a string instead.

    Attributes:
        content: What the model reads.
        is_error: Whether the tool did not do what was asked.
        usage: The tokens that another agent spent on the call, or ``None`` if no agent was asked.
        cost: US dollars for those tokens, or ``None`` if the price is not known.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    content: str | list[ContentPart]
    is_error: bool = Field(default=False, exclude_if=lambda is_error: not is_error)
    usage: Usage | None = Field(default=None, exclude_if=lambda usage: usage is None)
    cost: float | None = Field(default=None, exclude_if=lambda cost: cost is None)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model may call. :func:`tool` makes one.

    Attributes:
        spec: What the model sees of it.
        fn: The function.
        arguments: The pydantic model of its arguments.
        result_type: The return annotation, by which a result is written as JSON for the model.
        retries: How often an unexpected exception is retried. ``None`` means as often as the agent's other steps.
        timeout: Seconds, or a ``timedelta``, that one attempt may take.
        effect: What a second execution would do. See :data:`Effect`.
        on_error: What happens when the attempts are used up: ``"report"`` tells the model, ``"raise"`` fails the run.
        requires_approval: Whether a person must approve each call. See :mod:`durably.core.approval`.
        approval_timeout: How long to wait for the person; ``None`` waits for ever. No answer in time is a refusal.
        uses: Durable functions it calls. A backend registers them along with the agent.
    """

    spec: ToolSpec
    fn: Callable[..., Any]
    arguments: type[BaseModel]
    result_type: object = Any
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
        """Return what is wrong with a call's arguments, in words for the model, or ``None``."""
        try:
            self.arguments.model_validate(call.arguments)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors()]
            return f"invalid arguments for {self.name}: " + "; ".join(lines)
        return None

    async def act(self, step: StepAPI, call: ToolCall, depth: int = 0) -> str | ToolOutcome:
        """Answer one call in a durable step.

        Args:
            step: The steps of the run.
            call: What the model asks for; its arguments are valid.
            depth: How many delegations led to the agent that has this tool.

        Returns:
            Text for the model, or an outcome that says more.

        Raises:
            StepError: If the attempts are used up and ``on_error`` is ``"raise"``.
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

    async def run(self, arguments: JSONObject) -> str | ToolOutcome:
        """Run an async tool: the body of the step."""
        try:
            return self._outcome(await self.fn(**self._parse(arguments)))
        except ToolError as error:
            return ToolOutcome(content=str(error), is_error=True)

    def run_sync(self, arguments: JSONObject) -> str | ToolOutcome:
        """Run a sync tool: the body of the step, in a thread."""
        try:
            return self._outcome(self.fn(**self._parse(arguments)))
        except ToolError as error:
            return ToolOutcome(content=str(error), is_error=True)

    def _parse(self, arguments: JSONObject) -> dict[str, object]:
        parsed = self.arguments.model_validate(arguments)
        return {name: getattr(parsed, name) for name in self.arguments.model_fields}

    def _outcome(self, value: object) -> str | ToolOutcome:
        if isinstance(value, str):
            return value
        if isinstance(value, TextPart | FilePart):
            return ToolOutcome(content=[value])
        if isinstance(value, list) and value and all(isinstance(part, TextPart | FilePart) for part in value):
            return ToolOutcome(content=value)
        return codec_for(self.result_type).show(value, step=f"tool-{self.name}")


class ToolOptions(TypedDict, total=False):
    """The options of a tool. :class:`Tool` has an attribute for each.

    Keys:
        retries: How often an unexpected exception is retried. Default: as often as the agent's other steps.
        timeout: Seconds, or a ``timedelta``, that one attempt may take. Default: no limit.
        effect: ``"pure"``, ``"idempotent"`` (the default) or ``"at_most_once"``. See :data:`Effect`.
        on_error: ``"report"`` (the default) or ``"raise"``.
        requires_approval: Whether a person must approve each call. Default: no.
        approval_timeout: How long to wait for the person. Default: for ever.
    """

    retries: int | None
    timeout: Duration | None
    effect: Effect
    on_error: Literal["report", "raise"]
    requires_approval: bool
    approval_timeout: Duration | None


@overload
def tool(fn: Callable[..., object], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    **options: Unpack[ToolOptions],
) -> Callable[[Callable[..., object]], Tool]: ...
def tool(
    fn: Callable[..., object] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    **options: Unpack[ToolOptions],
) -> Tool | Callable[[Callable[..., object]], Tool]:
    """Make a sync or async function a tool. The model sees its name, its docstring and its type hints.

    A parameter is described with ``Annotated[str, Field(description="...")]``. Invalid arguments and ``ToolError``
    go back to the model as an error result. Any other exception is retried as a step, and then reported.

    Args:
        fn: The function. Leave it out to give options: ``@tool(retries=1)``.
        name: What the model calls it. Default: the function's name.
        description: What the model reads. Default: the docstring.
        options: See :class:`ToolOptions`.

    Returns:
        The tool, or a decorator if ``fn`` is left out.

    Raises:
        DefinitionError: If a parameter has no type hint, no JSON schema, or a default that is not JSON.
    """
    # Without the caller's locals, annotations that name a class defined inside a test function would not resolve.
    names = sys._getframe(1).f_locals

    def decorate(fn: Callable[..., object]) -> Tool:
        return _define(fn, names, name or str(getattr(fn, "__name__", "")), description, options)

    return decorate if fn is None else decorate(fn)


def _define(
    fn: Callable[..., object], names: Mapping[str, object], name: str, description: str | None, options: ToolOptions
) -> Tool:
    where = f"tool {name!r}"
    check_tool_name(name)
    _check_options(options, where)
    hints = resolve_hints(fn, names, where)
    arguments, schema = arguments_model(fn, name, hints, where)
    spec = ToolSpec(name=name, description=description or inspect.getdoc(fn) or "", parameters=schema)
    made = Tool(spec=spec, fn=fn, arguments=arguments, result_type=hints.get("return", Any))
    return replace(made, **options)


def _check_options(options: ToolOptions, where: str) -> None:
    effect = options.get("effect", "idempotent")
    if effect not in ("pure", "idempotent", "at_most_once"):
        raise DefinitionError(f"{where}: effect {effect!r}: use 'pure', 'idempotent' or 'at_most_once'")
    if options.get("approval_timeout") is not None and not options.get("requires_approval"):
        raise DefinitionError(f"{where}: approval_timeout= says how long to wait for requires_approval=True; add it")


def check_tool_name(name: str) -> None:
    """Refuse a tool's name that a provider would refuse.

    Raises:
        DefinitionError: If it is not 1 to 64 letters, digits, ``_`` and ``-``.
    """
    if not TOOL_NAME.fullmatch(name):
        raise DefinitionError(
            f"tool {name!r}: providers want a name of 1 to 64 letters, digits, '_' and '-', such as name='look_up'"
        )
