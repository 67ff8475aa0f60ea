"""Claude models, through Anthropic's SDK.

Owns: sending, and what the SDK's exceptions mean. Does not own: the format (``anthropic_messages.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any

from durably.core import ModelError
from durably.core.model import Delta, ModelRequest, ModelResponse
from durably.core.server_tools import ServerTool
from durably.core.submission import Submission
from durably.providers.answers import UnanswerableError
from durably.providers.anthropic_messages import DIALECT, answer, has_list_price, request_body
from durably.providers.anthropic_stream import StreamedAnswer
from durably.providers.clients import Clients
from durably.providers.failures import Failures, raise_alone
from durably.providers.keys import Key
from durably.providers.later import batched, pending
from durably.providers.options import plain_body, sdk_arguments
from durably.providers.prices import price
from durably.providers.server_tools import anthropic_gap

try:
    import anthropic
    import httpx2

    from durably.providers import anthropic_batches
except ImportError as error:
    raise ImportError("AnthropicModel needs the package anthropic: pip install 'durably[anthropic]'") from error

__all__ = ["AnthropicModel"]

PROVIDER = "anthropic"

_KEY = Key(env="ANTHROPIC_API_KEY")


@dataclass(frozen=True)
class AnthropicModel:
    """A Claude model.

    Request options are Anthropic's own parameters, such as ``{"thinking": {"type": "adaptive"}}``. ``tool_choice`` may
    also be ``"auto"``, ``"required"``, ``"none"`` or a tool's name.

    Args:
        model: The model, such as ``"claude-opus-4-6"``.
        key: The place where each call looks the key up.
        base_url: The address of another server that speaks the Messages API.
        max_tokens: The longest answer, in tokens, unless the options set it.
        cache: Whether the provider keeps the conversation in its prompt cache, so that the next turn pays a tenth for
            it. Breakpoints are set behind tools, system prompt and the newest messages, unless the options set some.
        batch: Whether each request is a batch of its own: for half the price, with an answer within a day, most within
            an hour. The run of an agent waits for it.
        timeout: Seconds to wait for a connection, and then for each next piece of the answer.
            ``Agent(model_timeout=)`` limits the whole call.
    """

    model: str
    _: KW_ONLY
    key: Key = _KEY
    base_url: str | None = None
    max_tokens: int = 8192
    cache: bool = True
    batch: bool = False
    timeout: float = 600.0

    @property
    def name(self) -> str:
        """The provider and the model, such as ``"anthropic:claude-opus-4-6"``."""
        return f"{PROVIDER}:{self.model}"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request; or, with ``batch``, submit it.

        Raises:
            ModelError: If the provider refused or failed.
        """
        body = self._body(request)
        async with self._client() as (client, failures):
            with _failing(failures):
                if self.batch:
                    submitted = batched(await anthropic_batches.submit(client, *plain_body(body), failures))
                    return pending(submitted, origin=DIALECT.origin)
                message = await client.messages.create(**_arguments(body))
                with failures.reading():
                    data = message.model_dump(mode="json", exclude_unset=True, warnings=False)
                    if data.get("error"):
                        raise failures.in_body(data["error"])
                    return self._finish(data, request, message._request_id)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """Yield the pieces of the answer, and at the end the whole.

        Raises:
            ModelError: If the provider refused or failed, or the stream was cut.
        """
        if self.batch:
            yield await self.complete(request)
            return
        arguments = _arguments(self._body(request))
        made = StreamedAnswer()
        async with self._client() as (client, failures):
            with _failing(failures):
                async with await client.messages.create(**arguments, stream=True) as events:
                    failures.headers = events.response.headers
                    async for event in events:
                        for delta in failures.read_piece(made.take, event, exclude_unset=True):
                            yield delta
                if not made.whole:
                    raise failures.cut()
                with failures.reading():
                    response = self._finish(made.data, request, failures.headers.get("request-id"))
            yield response

    async def fetch(self, submitted: Submission, request: ModelRequest) -> ModelResponse:
        """Ask once for the answer in a batch. A response that is still ``submitted`` says that there is none yet.

        Args:
            submitted: What :meth:`complete` returned.
            request: The request, without its conversation.

        Raises:
            AnswerFailedError: If the provider failed to answer, and may not fail again.
            ModelError: If it refused the request, or the batch expired or was cancelled.
        """
        async with self._client() as (client, failures):
            with _failing(failures):
                data = await anthropic_batches.fetch(client, submitted.id, failures)
                if data is None:
                    return pending(submitted, origin=DIALECT.origin)
                with failures.reading():
                    return self._finish(data, request, None)

    async def give_up(self, submitted: Submission) -> None:
        """Cancel a batch whose answer nobody waits for.

        Raises:
            ModelError: If the provider refused or failed.
        """
        async with self._client() as (client, failures):
            with _failing(failures):
                await anthropic_batches.cancel(client, submitted.id)

    def server_tool_gap(self, tool: ServerTool) -> str | None:
        """Return what the provider lacks of a tool of its own, in words, or ``None``."""
        return anthropic_gap(tool)

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        with _failing(Failures(PROVIDER, self.model)):
            return request_body(request, model=self.model, max_tokens=self.max_tokens, cache=self.cache)

    def _finish(self, data: Mapping[str, Any], request: ModelRequest, request_id: str | None) -> ModelResponse:
        response = answer(data, turn=request.turn)
        known, model = has_list_price(data), response.model or self.model
        cost = price(response.usage, model, provider=PROVIDER, batched=self.batch) if known else None
        return response.model_copy(update={"cost": cost, "request_id": request_id})

    def _client(self) -> AbstractAsyncContextManager[tuple[anthropic.AsyncAnthropic, Failures]]:
        return _CLIENTS.for_call(self.key, self.base_url, self.timeout, provider=PROVIDER, model=self.model)


def _arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    return sdk_arguments(body, "model", "max_tokens", "messages")


def _make_client(key: str, base_url: str | None, timeout: float) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0, timeout=timeout)


_CLIENTS = Clients(_make_client)


@contextmanager
def _failing(failures: Failures) -> Iterator[None]:
    try:
        yield
    except anthropic.APIStatusError as error:
        raise_alone(_answered(error, failures))
    except (anthropic.APIConnectionError, httpx2.TransportError) as error:
        raise_alone(failures.unanswered(error))
    except UnanswerableError as error:
        raise_alone(failures.unusable(str(error)))
    except (anthropic.APIResponseValidationError, ValueError) as error:  # the body is not JSON, or not a response
        raise_alone(failures.unanswered(error))
    except anthropic.AnthropicError as error:
        raise_alone(failures.unusable(str(error)))


def _answered(error: anthropic.APIStatusError, failures: Failures) -> ModelError:
    failures.headers = error.response.headers
    message = error.api_message or error.message
    return failures.answered(error.status_code, message, code=error.error_code or error.type)
