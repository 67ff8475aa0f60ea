"""Every provider, made to talk to a local server. The suites run over all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import litellm
import openai
from litellm.llms.custom_httpx.async_client_cleanup import close_litellm_async_clients

from durably.core.messages import Message
from durably.core.model import Delta, ModelRequest, ModelResponse, StreamingModel, ToolSpec
from durably.providers import Key
from durably.providers.anthropic import AnthropicModel
from durably.providers.litellm import LiteLLMModel
from durably.providers.openai import OpenAIModel
from durably.testing.models.llm_server import LLMServer
from tests.providers.subjects import ENV

KEY = "sk-test-0123456789"
CLIENT = "client"

WEATHER = ToolSpec(
    name="weather",
    description="The weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@dataclass(frozen=True)
class Case:
    """One provider in one format.

    Attributes:
        id: Names it.
        origin: What its messages say of who made them.
        make: A model that talks to the server, with its key from a given place.
        client: A client of its SDK for the server, or ``None``.
    """

    id: str
    origin: str
    make: Callable[[LLMServer, Key, float], StreamingModel]
    client: Callable[[LLMServer], Any] | None = None

    def model(self, server: LLMServer, *, timeout: float = 30.0) -> StreamingModel:
        """With the key from the environment."""
        return self.make(server, Key(env=ENV), timeout)

    @asynccontextmanager
    async def reused(self, server: LLMServer) -> AsyncIterator[tuple[StreamingModel, dict[str, Any]]]:
        """With one client for all calls, where the SDK has one: the model, and the resources it needs."""
        if self.client is None:
            yield self.model(server), {}
            await close_litellm()
            return
        async with self.client(server) as client:
            yield self.make(server, Key(resource=CLIENT), 30.0), {CLIENT: client}


ANTHROPIC = Case(
    "anthropic",
    "anthropic",
    lambda server, key, timeout: AnthropicModel("claude-opus-4-6", key=key, base_url=server.url, timeout=timeout),
    lambda server: anthropic.AsyncAnthropic(api_key=KEY, base_url=server.url),
)
CHAT = Case(
    "openai-chat",
    "openai-chat",
    lambda server, key, timeout: OpenAIModel("gpt-5", key=key, base_url=server.openai_url, timeout=timeout),
    lambda server: openai.AsyncOpenAI(api_key=KEY, base_url=server.openai_url),
)
RESPONSES = Case(
    "openai-responses",
    "openai",
    lambda server, key, timeout: OpenAIModel(
        "gpt-5", key=key, base_url=server.openai_url, api="responses", timeout=timeout
    ),
    lambda server: openai.AsyncOpenAI(api_key=KEY, base_url=server.openai_url),
)
LITELLM_OPENAI = Case(
    "litellm-openai",
    "litellm:openai",
    lambda server, key, timeout: LiteLLMModel("openai/gpt-5", key=key, base_url=server.openai_url, timeout=timeout),
)
LITELLM_ANTHROPIC = Case(
    "litellm-anthropic",
    "litellm:anthropic",
    lambda server, key, timeout: LiteLLMModel(
        "anthropic/claude-opus-4-6", key=key, base_url=server.url, timeout=timeout
    ),
)
CASES = (ANTHROPIC, CHAT, RESPONSES, LITELLM_OPENAI, LITELLM_ANTHROPIC)


async def close_litellm() -> None:
    """Close the clients that litellm keeps for each event loop."""
    await close_litellm_async_clients()  # type: ignore[no-untyped-call]
    litellm.in_memory_llm_clients_cache.flush_cache()  # type: ignore[no-untyped-call]


def question(*messages: Message, **fields: Any) -> ModelRequest:
    """A request with a tool, at the turn that its messages say."""
    turn = sum(message.role == "assistant" for message in messages)
    return ModelRequest(**{"system": "Be brief.", "messages": messages, "tools": [WEATHER], "turn": turn, **fields})


async def ask(model: StreamingModel, request: ModelRequest, streamed: bool) -> tuple[ModelResponse, list[Delta]]:
    """The answer, and the pieces it came in."""
    if not streamed:
        return await model.complete(request), []
    deltas: list[Delta] = []
    answers: list[ModelResponse] = []
    async for piece in model.stream(request):
        assert not answers, "the answer is the last piece"
        if isinstance(piece, Delta):
            deltas.append(piece)
        else:
            answers.append(piece)
    return answers[0], deltas
