"""The port to model providers: requests, responses, streaming, and how a name becomes a model.

Owns: what a provider implements. Does not own: the providers (``durably.providers``), retries (the engine), and asking
another model after a failure (``fallback.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from durably.core.error_text import shown
from durably.core.errors import DefinitionError
from durably.core.left_out import is_falsy, is_none
from durably.core.messages import AssistantMessage, JSONObject, Message
from durably.core.server_tools import ServerTool
from durably.core.submission import Submission

__all__ = [
    "AnswerVerdict",
    "DeferringModel",
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
"""The group of entry points under which a package offers models by name."""

StopReason = Literal["end", "tool_calls", "max_tokens", "refusal", "pause"]
"""Why the model stopped.

``end``: it was done. ``tool_calls``: it asks for tools. ``max_tokens``: its answer was cut off. ``refusal``: it
declined. ``pause``: it wants to be asked again, to go on.
"""

_ENDS_OR_CALLS = ("end", "tool_calls")
"""Reasons that the message itself tells apart."""


class Usage(BaseModel):
    """The tokens of one model call, or of several. ``+`` adds them up."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    input_tokens: int = 0
    """All tokens read, those from a cache included."""
    output_tokens: int = 0
    """All tokens written, reasoning included."""
    cached_tokens: int = Field(default=0, exclude_if=is_falsy)
    """Of the input: read from the provider's cache."""
    cache_write_tokens: int = Field(default=0, exclude_if=is_falsy)
    """Of the input: written to the provider's cache."""
    reasoning_tokens: int = Field(default=0, exclude_if=is_falsy)
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
        description: What it does, as a text for the model.
        parameters: The JSON schema of its arguments. Its root is an object.
        strict: Whether the provider enforces the schema.
        deferred: Whether the model must search for it, with :class:`~durably.core.server_tools.ToolSearch`.
        examples: Arguments of good calls.
        native: Fields of one provider, by the provider's name, such as ``{"anthropic": {"allowed_callers":
            ["direct"]}}``. They are passed on unchanged.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False
    deferred: bool = False
    examples: Sequence[JSONObject] = ()
    native: Mapping[str, JSONObject] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One request to a model. A model must not change it.

    Args:
        system: The system prompt.
        messages: The conversation, oldest first.
        tools: The tools that the model may call.
        turn: How many assistant messages there were in the conversation.
        output_schema: The JSON schema that the answer must fit, or ``None`` for free text.
        reminder: A text for the model in this request only. It comes after the newest message, so that everything
            before it equals the last request and the provider's prompt cache still fits.
        server_tools: Tools that the provider runs. See :mod:`durably.core.server_tools`.
        options: Parameters of the provider's own, passed on as they are, such as ``{"temperature": 0}``.
    """

    system: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    turn: int = 0
    output_schema: Mapping[str, Any] | None = None
    reminder: str = ""
    server_tools: Sequence[ServerTool] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class AnswerVerdict(BaseModel):
    """The verdict on a final answer. It is recorded with the answer and does not change on replay.

    Args:
        complaint: What is wrong with it, as a text for the model, or ``None`` if it was accepted.
        output: The answer as the agent's ``output_type``, as JSON data.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    complaint: str | None = Field(default=None, exclude_if=is_none)
    output: Any = Field(default=None, exclude_if=is_none)


class ModelResponse(BaseModel):
    """A complete answer of a model. The step ``think`` records it.

    Args:
        message: The model's message.
        usage: The tokens of this call.
        stop_reason: Why it stopped. A message with tool calls makes ``"end"`` into ``"tool_calls"``.
        cost: US dollars, or ``None`` if the price is unknown.
        model: The model that answered, as the provider names it.
        request_id: The provider's id of the call.
        checked_in_steps: Whether the tools' steps validate the arguments of its calls. The agent sets it if the verdict
            could differ on replay. Older records lack it; for them the loop validates.
        shares_budget: Whether agents that it calls are given what is left of the run's budget. The agent sets it. Older
            records lack it; for them these agents are asked without it.
        budget_shares: Into how many equal parts it is divided: one for each such call. The agent sets it. In older
            records it is 1, and for them each of these agents is given all that is left.
        verdict: The agent's verdict on a typed answer, or on one that is too large to record. Older records lack it;
            for them the loop validates.
        submitted: The request that the provider has taken and answers later. The message is empty then.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    message: AssistantMessage
    usage: Usage = Field(
        default_factory=Usage, exclude_if=lambda usage: not (usage.input_tokens or usage.output_tokens)
    )
    stop_reason: StopReason = Field(default="end", exclude_if=_ENDS_OR_CALLS.__contains__)
    cost: float | None = Field(default=None, exclude_if=is_none)
    model: str | None = Field(default=None, exclude_if=is_none)
    request_id: str | None = Field(default=None, exclude_if=is_none)
    checked_in_steps: bool = Field(default=False, exclude_if=is_falsy)
    shares_budget: bool = Field(default=False, exclude_if=is_falsy)
    budget_shares: int = Field(default=1, exclude_if=(1).__eq__)
    verdict: AnswerVerdict | None = Field(default=None, exclude_if=is_none)
    submitted: Submission | None = Field(default=None, exclude_if=is_none)

    @model_validator(mode="after")
    def _ends_or_calls(self) -> Self:
        # Records leave out both reasons, since the message tells them apart. So it does here, whatever a server said:
        # the answer that is read back is the same. The instance is frozen, hence vars().
        if self.stop_reason in _ENDS_OR_CALLS:
            vars(self)["stop_reason"] = "tool_calls" if self.message.tool_calls else "end"
        return self


class Delta(BaseModel):
    """A piece of an answer that is still being written.

    Args:
        kind: The kind of part that grows.
        text: The new piece: text, reasoning, or a piece of a call's JSON arguments.
        index: The position of that part in the message.
        answer: The number of the answer within the attempt, from 0. It grows when a model falls back to another one.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    kind: Literal["text", "thinking", "tool_call"]
    text: str
    index: int = 0
    answer: int = Field(default=0, exclude_if=is_falsy)


class StreamedDelta(BaseModel):
    """A piece of an answer, as listeners get it while the step ``think`` runs. It is never recorded.

    Args:
        run_id: The run.
        function: The id of the run's function.
        step: The key of the step, such as ``"think:1"``.
        attempt: The attempt of the step. A higher one starts the answer again: a listener drops what it has.
        offset: How many pieces of this attempt came before.
        delta: The piece.
        at: When it came, in seconds since 1970.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    run_id: str
    function: str = ""
    step: str
    attempt: int
    offset: int
    delta: Delta
    at: float = 0.0


DeltaSink = Callable[[StreamedDelta], Awaitable[None] | None]
"""A listener: it is called with each piece of an answer, in the process that runs the step. What it raises is logged
and has no other effect."""


@runtime_checkable
class Model(Protocol):
    """Answers a :class:`ModelRequest`.

    An implementation does not retry. It raises :class:`~durably.core.ModelError`, which says whether the engine should.
    """

    @property
    def name(self) -> str:
        """The provider and the model, such as ``"anthropic:claude-opus-4-6"``."""
        ...

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request.

        Raises:
            ModelError: If the provider refused or failed.
        """
        ...


@runtime_checkable
class StreamingModel(Model, Protocol):
    """A model that can also stream its answer."""

    def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """Yield the pieces of the answer, and at the end what :meth:`Model.complete` would have returned."""
        ...


@runtime_checkable
class DeferringModel(Model, Protocol):
    """A model that may answer later: ``complete`` then returns a response that says what was ``submitted``."""

    async def fetch(self, submitted: Submission, request: ModelRequest) -> ModelResponse:
        """Ask once for the answer; a response that is still ``submitted`` says that there is none yet.

        Args:
            submitted: What ``complete`` returned.
            request: The request, without its conversation.

        Raises:
            AnswerFailedError: If the provider failed to answer, and may not fail again.
            ModelError: If it refused, or will never answer.
        """
        ...

    async def give_up(self, submitted: Submission) -> None:
        """Have the provider stop working on an answer that nobody waits for any more. One that has ended stays so."""
        ...


def resolve_model(model: Model | str) -> Model:
    """Return the model that a string such as ``"anthropic:claude-opus-4-6"`` names. A model is returned as it is.

    The part before the colon names an entry point of the group ``durably.models``: a callable that takes the rest and
    returns a :class:`Model`.

    Raises:
        DefinitionError: If no installed package offers the provider.
    """
    if not isinstance(model, str):
        if isinstance(model, type) or not callable(getattr(model, "complete", None)):
            raise DefinitionError(
                f"{shown(model)} is not a model: write 'provider:model', such as 'anthropic:claude-opus-4-6', or pass "
                "an object with an async method complete(request)"
            )
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
