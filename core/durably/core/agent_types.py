"""The types of one agent: of its input, of its result, and of its options.

Does not own: the agent (``agent.py``), and what inputs and results have in common (``result.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Required

from pydantic import BeforeValidator, Field, create_model

from durably.core.annotations import is_lazy
from durably.core.budget import Budget
from durably.core.compaction import Compaction
from durably.core.errors import DefinitionError, SerializationError
from durably.core.functions import Function, FunctionOptions
from durably.core.hooks import Hooks
from durably.core.left_out import is_none
from durably.core.model import DeltaSink, Model
from durably.core.result import AgentInput, AgentResult
from durably.core.serialization import Codec, codec_for
from durably.core.server_tools import ServerTool
from durably.core.session_options import OnMessage
from durably.core.sessions import SessionStore
from durably.core.tools import Tool
from durably.core.toolsets import Toolset

__all__ = ["AgentOptions", "Instructions", "ModelOptions", "input_type", "result_type", "takes_none"]

Instructions = str | Callable[[], str | Awaitable[str]] | Callable[[Any], str | Awaitable[str]]
"""A system prompt, or a callable that returns it; it may take a :class:`~durably.core.ToolContext`."""

ModelOptions = Mapping[str, object] | Callable[[], Any] | Callable[[Any], Any]
"""A provider's own parameters, or a callable that returns them; it may take a :class:`~durably.core.ToolContext`."""


def input_type(name: str, context: Codec) -> Any:
    """Return the type of an agent's input, whose ``context`` is of the agent's own type."""
    if context.type is Any:
        return Annotated[AgentInput, BeforeValidator(_as_input)]
    _check_eager(name, "context_type", context)
    default = Field(default=None, exclude_if=is_none) if takes_none(context) else Field()
    typed: dict[str, Any] = {"context": (context.type, default)}
    return Annotated[create_model(f"{name}Input", __base__=AgentInput, **typed), BeforeValidator(_as_fields)]


def takes_none(codec: Codec) -> bool:
    """Return whether ``None`` is a value of a type."""
    try:
        codec.validate(None, what="")
    except SerializationError:
        return False
    return True


def result_type(name: str, output_type: Any) -> type[AgentResult]:
    """Return ``AgentResult``, or a subclass of it whose ``output`` is read back as the agent's own type."""
    if output_type is None:
        return AgentResult
    _check_eager(name, "output_type", codec_for(output_type))
    typed: dict[str, Any] = {"output": (output_type | None, None)}
    return create_model(f"{name}Result", __base__=AgentResult, **typed)


def _check_eager(name: str, option: str, codec: Codec) -> None:
    if is_lazy(codec.type) or is_lazy(None, codec.check()._adapter.core_schema):
        raise DefinitionError(
            f"agent {name!r}: its {option} is an iterable, whose items are checked only while they are used: use a "
            "list, such as list[int]"
        )


def _as_input(value: object) -> object:
    return {"message": value} if isinstance(value, str | list) else value


def _as_fields(value: object) -> object:
    return dict(value) if isinstance(value, AgentInput) else _as_input(value)


class AgentOptions(FunctionOptions, total=False):
    """The options of an agent, for type checkers. See :class:`~durably.core.Agent`."""

    model: Required[Model | str]
    instructions: Required[Instructions]
    tools: Sequence[Tool | Toolset | Function[Any, Any] | Callable[..., object] | ServerTool]
    output_validator: Callable[[Any], Any] | None
    output_retries: int
    max_iterations: int
    budget: Budget | None
    fallback: Model | str | Sequence[Model | str]
    compaction: Compaction | None
    sessions: SessionStore | Literal["backend"] | None
    save_turns: bool
    on_message: OnMessage | None
    hooks: Sequence[Hooks]
    model_options: ModelOptions | None
    model_timeout: float | None
    stream: bool
    sink: DeltaSink | str | None
