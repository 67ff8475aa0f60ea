"""The port to model providers: what the loop asks, what it gets, and how a model is found by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from durably.core.errors import DefinitionError
from durably.core.messages import AssistantMessage, Message

__all__ = [
    "Delta",
    "DeltaSink",
    "Model",
    "ModelRequest",
    "ModelResponse",
    "StopReason",
    "StreamedDelta",
    "StreamingModel",
    "ToolSpec",
    "Usage",
    "resolve_model",
]

ENTRY_POINT_GROUP = "durably.models"

StopReason = Literal["end", "tool_calls", "max_tokens", "refusal", "pause"]
"""Why the model stopped: it was done, it asks for tools, it ran out of room, it declined, or it wants to go on."""


class Usage(BaseModel):
    """Tokens of one model call, or a sum of several."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    input_tokens: int = 0
    """All tokens read, those from a cache included."""
    output_tokens: int = 0
    """All tokens written, reasoning included."""
    cached_tokens: int = Field(default=0, exclude_if=lambda tokens: not tokens)
    """Of the input: read from the provider's cache."""
    cache_write_tokens: int = Field(default=0, exclude_if=lambda tokens: not tokens)
    """Of the input: written to the provider's cache."""
    reasoning_tokens: int = Field(default=0, exclude_if=lambda tokens: not tokens)
    """Of the output: spent on reasoning."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """A tool as the model sees it.

    Args:
        name: Its name.
        description: What it does, for the model to read.
        parameters: The JSON schema of its arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One question to a model.

    Args:
        system: The system prompt.
        messages: The conversation, oldest first; never changed by the model.
        tools: What the model may call.
        turn: How many assistant messages the conversation holds already.
        output_schema: The JSON schema the answer must fit, or ``None`` for free text.
        options: Passed to the provider as they are, such as ``{"temperature": 0}``.
    """

    system: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    turn: int = 0
    output_schema: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class ModelResponse(BaseModel):
    """A whole answer of a model; this is what the step ``think`` records.

    Args:
        message: What it said.
        usage: The tokens of this call.
        stop_reason: Why it stopped.
        cost: In US dollars, or ``None`` where the price is not known.
        model: The model that answered, as the provider names it.
        request_id: The provider's id of the call.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    message: AssistantMessage
    usage: Usage = Field(
        default_factory=Usage, exclude_if=lambda usage: not (usage.input_tokens or usage.output_tokens)
    )
    stop_reason: StopReason = Field(default="end", exclude_if=lambda reason: reason in ("end", "tool_calls"))
    cost: float | None = Field(default=None, exclude_if=lambda cost: cost is None)
    model: str | None = Field(default=None, exclude_if=lambda model: model is None)
    request_id: str | None = Field(default=None, exclude_if=lambda request_id: request_id is None)

    @model_validator(mode="after")
    def _ends_or_calls(self) -> Self:
        # Of these two the message itself says which, so the record does not.
        if self.stop_reason == "end" and self.message.tool_calls:
            vars(self)["stop_reason"] = "tool_calls"
        return self


class Delta(BaseModel):
    """A piece of an answer that is still being written.

    Args:
        kind: What grows.
        text: The new piece: text, reasoning, or a piece of a call's JSON arguments.
        index: Which part of the message grows.
        answer: Which answer of this attempt it belongs to: a model that falls back to another one starts the next.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    kind: Literal["text", "thinking", "tool_call"]
    text: str
    index: int = 0
    answer: int = Field(default=0, exclude_if=lambda answer: not answer)


class StreamedDelta(BaseModel):
    """A piece of an answer as a listener gets it, while the step ``think`` runs. It is never recorded.

    Args:
        run_id: The run.
        step: The key of the step, such as ``"think:1"``.
        attempt: The attempt of the step. A listener that sees a higher one starts over: the answer is written anew.
        offset: How many pieces of this attempt came before.
        delta: The piece.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    run_id: str
    step: str
    attempt: int
    offset: int
    delta: Delta


DeltaSink = Callable[[StreamedDelta], Awaitable[None] | None]
"""Gets the pieces of answers, in the process that runs the step. What it raises is logged and goes no further."""


@runtime_checkable
class Model(Protocol):
    """What answers a :class:`ModelRequest`.

    An implementation never retries by itself: it raises :class:`~durably.core.ModelError`, which says whether the
    engine should.
    """

    @property
    def name(self) -> str:
        """Such as ``"anthropic:claude-opus-4-6"``."""
        ...

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request.

        Raises:
            ModelError: If the provider refused or failed.
        """
        ...


@runtime_checkable
class StreamingModel(Model, Protocol):
    """A model that can also show its answer while it is written."""

    def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """The pieces of the answer, then, last, what :meth:`Model.complete` would have returned."""
        ...


def resolve_model(model: Model | str) -> Model:
    """The model itself, or the one a string such as ``"anthropic:claude-opus-4-6"`` names.

    The part before the colon names an entry point of the group ``durably.models``: a callable that is given the
    rest and returns a :class:`Model`.

    Raises:
        DefinitionError: If no installed package offers it.
    """
    if not isinstance(model, str):
        return model
    from importlib.metadata import entry_points  # as slow to import as the rest of this package; only strings need it

    provider, colon, rest = model.partition(":")
    offers = entry_points(group=ENTRY_POINT_GROUP)
    if not colon or not rest or provider not in offers.names:
        known = ", ".join(f"{name}:..." for name in sorted(offers.names)) or "none is installed"
        raise DefinitionError(
            f"{model!r} is not a model: write 'provider:model' with one of these providers: {known}; or pass an object "
            "with an async method complete(request)"
        )
    made: Model = offers[provider].load()(rest)
    return made
