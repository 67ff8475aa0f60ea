"""OpenAI's models, and those of every server that speaks chat completions, through OpenAI's SDK.

Owns: sending, and what the SDK's exceptions mean. Does not own: the formats (``responses.py``, ``chat.py``).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

from durably.core import ModelError
from durably.core.model import Delta, ModelRequest, ModelResponse
from durably.core.server_tools import ServerTool
from durably.core.submission import Submission
from durably.providers import chat, responses
from durably.providers.answers import UnanswerableError
from durably.providers.cache_key import conversation_key
from durably.providers.chat_stream import StreamedAnswer
from durably.providers.clients import Clients
from durably.providers.dialect import Dialect
from durably.providers.failures import Failures, raise_alone
from durably.providers.keys import Key
from durably.providers.later import batched, pending, with_key
from durably.providers.options import plain_body, sdk_arguments
from durably.providers.prices import price
from durably.providers.server_tools import openai_gap

try:
    import httpx2
    import openai

    from durably.providers import openai_batches
except ImportError as error:
    raise ImportError("OpenAIModel needs the package openai: pip install 'durably[openai]'") from error

__all__ = ["OpenAIModel"]

PROVIDER = "openai"

_KEY = Key(env="OPENAI_API_KEY")


@dataclass(frozen=True)
class OpenAIModel:
    """A model of OpenAI, or of any server that speaks chat completions.

    Request options are the API's own parameters, such as ``{"reasoning": {"effort": "low"}}``. ``tool_choice`` may also
    be a tool's name.

    Args:
        model: The model, such as ``"gpt-5"``.
        key: The place where each call looks the key up, or ``None`` for a server without keys.
        base_url: The address of another server, such as ``"http://localhost:11434/v1"``.
        api: The format. Default: Responses at OpenAI itself, chat completions at any other address.
        reasons: Whether it is a reasoning model, whose reasoning is kept for the next turn (Responses only). Default:
            decided by OpenAI's names of models.
        native_output: Whether the server knows ``response_format``. If not, the system prompt asks for the schema.
        prices: The provider whose prices count, by its name in the package genai-prices. Default: found by the address.
        cache: Whether OpenAI is told which requests belong to one conversation, so that each meets the machine that has
            the beginning in its prompt cache.
        batch: Whether each request is a batch of its own: for half the price, with an answer within a day. The run of
            an agent waits for it. For an answer that is made in the background, at the usual price, give the option
            ``{"background": True}`` instead (Responses only).
        timeout: Seconds to wait for a connection, and then for each next piece of the answer.
            ``Agent(model_timeout=)`` limits the whole call.
    """

    model: str
    _: KW_ONLY
    key: Key | None = _KEY
    base_url: str | None = None
    api: Literal["responses", "chat"] | None = None
    reasons: bool | None = None
    native_output: bool = True
    prices: str | None = None
    cache: bool = True
    batch: bool = False
    timeout: float = 600.0

    @property
    def name(self) -> str:
        """The provider and the model, such as ``"openai:gpt-5"``."""
        return f"{PROVIDER}:{self.model}"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request; or, with ``batch`` or in the background, submit it.

        Raises:
            ModelError: If the provider refused or failed.
        """
        body = self._body(request)
        async with self._client() as (client, failures):
            with _failing(failures):
                if self.batch:
                    endpoint = "/v1/chat/completions" if self._chat else "/v1/responses"
                    submitted = batched(await openai_batches.submit(client, endpoint, *plain_body(body), failures))
                    return pending(submitted, origin=self._origin)
                if body.get("background"):
                    body["extra_headers"] = with_key(body.get("extra_headers"))
                made: Any = await self._endpoint(client).create(**self._arguments(body))
                with failures.reading():
                    data = made.model_dump(mode="json", exclude_unset=True, warnings=False)
                    return self._finish(data, request, made._request_id, failures)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """Yield the pieces of the answer, and at the end the whole.

        Raises:
            ModelError: If the provider refused or failed, or the stream was cut.
        """
        body = self._body(request)
        if self.batch or body.get("background"):
            yield await self.complete(request)
            return
        arguments = {**self._arguments(body), "stream": True}
        made: StreamedAnswer | _StreamedResponse = StreamedAnswer() if self._chat else _StreamedResponse()
        if self._chat:
            arguments.setdefault("stream_options", {"include_usage": True})
        async with self._client() as (client, failures):
            with _failing(failures):
                async with await self._endpoint(client).create(**arguments) as events:
                    failures.headers = events.response.headers
                    async for event in events:
                        for delta in failures.read_piece(made.take, event, exclude_unset=True):
                            yield delta
                if not made.whole:
                    raise failures.cut()
                with failures.reading():
                    response = self._finish(made.data, request, failures.headers.get("x-request-id"), failures)
            yield response

    async def fetch(self, submitted: Submission, request: ModelRequest) -> ModelResponse:
        """Ask once for an answer that comes later. A response that is still ``submitted`` says that there is none yet.

        Args:
            submitted: What :meth:`complete` returned.
            request: The request, without its conversation.

        Raises:
            AnswerFailedError: If the provider failed to answer, and may not fail again.
            ModelError: If it refused the request, or the answer expired or was cancelled.
        """
        async with self._client() as (client, failures):
            with _failing(failures):
                if submitted.kind == "batch":
                    found = await openai_batches.fetch(client, submitted.id, failures)
                    if found is None:
                        return pending(submitted, origin=self._origin)
                    with failures.reading():
                        return self._finish(found, request, None, failures)
                include: Any = responses.included(self._reasons)
                made: Any = await client.responses.retrieve(submitted.id, include=include)
                with failures.reading():
                    data = made.model_dump(mode="json", exclude_unset=True, warnings=False)
                    if data.get("error"):
                        raise failures.late(failures.in_body(data["error"]))
                    return self._finish(data, request, made._request_id, failures)

    async def give_up(self, submitted: Submission) -> None:
        """Cancel an answer that nobody waits for.

        Raises:
            ModelError: If the provider refused or failed.
        """
        async with self._client() as (client, failures):
            with _failing(failures):
                if submitted.kind == "batch":
                    await openai_batches.cancel(client, submitted.id)
                else:
                    await client.responses.cancel(submitted.id)

    @property
    def _origin(self) -> str:
        return chat.DIALECT.origin if self._chat else responses.DIALECT.origin

    @property
    def _reasons(self) -> bool:
        return _is_reasoning(self.model) if self.reasons is None else self.reasons

    @property
    def _chat(self) -> bool:
        return (self.api or ("responses" if self.base_url is None else "chat")) == "chat"

    @property
    def _server(self) -> str | None:
        """The host that gets its reasoning back; OpenAI's own chat completions have none to give."""
        return None if self.base_url is None else httpx2.URL(self.base_url).host

    @property
    def _dialect(self) -> Dialect:
        return replace(chat.DIALECT, takes_thinking=lambda part: chat.is_thought_of(part, self._server))

    def _endpoint(self, client: openai.AsyncOpenAI) -> Any:
        return client.chat.completions if self._chat else client.responses

    def server_tool_gap(self, tool: ServerTool) -> str | None:
        """Return what the server lacks of a tool of its own, in words, or ``None``."""
        return "chat completions have no tools of their own: use api='responses'" if self._chat else openai_gap(tool)

    def _arguments(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return sdk_arguments(body, "model", "messages" if self._chat else "input")

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        with _failing(Failures(PROVIDER, self.model)):
            return self._checked_body(request)

    def _checked_body(self, request: ModelRequest) -> dict[str, Any]:
        if self.cache and self.base_url is None:  # other servers may refuse a field that they do not know
            request = replace(request, options={"prompt_cache_key": conversation_key(request), **request.options})
        if self._chat:
            if request.options.get("background"):
                raise UnanswerableError("chat completions make no answers in the background: use api='responses'")
            return chat.request_body(request, model=self.model, dialect=self._dialect, native_output=self.native_output)
        body = responses.request_body(request, model=self.model, reasons=self._reasons)
        if body.get("background") and (self.batch or not body["store"]):
            what = "is no batch: take batch=True" if self.batch else "is stored until it is fetched: take store=False"
            raise UnanswerableError(f"an answer in the background {what} away")
        return body

    def _finish(
        self, data: Mapping[str, Any], request: ModelRequest, request_id: str | None, failures: Failures
    ) -> ModelResponse:
        error = chat.error_of(data) if self._chat else data.get("error")
        if error:
            failures.headers = failures.headers or ({"x-request-id": request_id} if request_id else {})
            raise failures.in_body(error)
        if self._chat:
            response = chat.answer(data, request, origin=chat.DIALECT.origin, server=self._server)
        else:
            response = responses.answer(data, request)
        if response.submitted is not None:
            return response.model_copy(update={"request_id": request_id})
        by_name = self.prices or (PROVIDER if self.base_url is None else None)
        url = None if by_name else self.base_url
        known, model = _has_list_price(data), response.model or self.model
        cost = price(response.usage, model, provider=by_name, url=url, batched=self.batch) if known else None
        return response.model_copy(update={"cost": cost, "request_id": request_id})

    def _client(self) -> AbstractAsyncContextManager[tuple[openai.AsyncOpenAI, Failures]]:
        return _CLIENTS.for_call(self.key, self.base_url, self.timeout, provider=PROVIDER, model=self.model)


def _make_client(key: str, base_url: str | None, timeout: float) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout)


_CLIENTS = Clients(_make_client)


def _has_list_price(data: Mapping[str, Any]) -> bool:
    """Whether an answer costs what the price list says of its tokens: no other tier, and no tools that cost extra."""
    searched = any(str(item.get("type")).endswith("_search_call") for item in data.get("output") or ())
    return data.get("service_tier") in (None, "auto", "default", "batch") and not searched


_REASONING = re.compile(r"(o[1-9]|gpt-[5-9])(?![a-z])(?!.*chat).*")


def _is_reasoning(model: str) -> bool:
    """Whether OpenAI's model of this name reasons; a fine-tuned one (``ft:o4-mini:org::id``) as its base does."""
    return _REASONING.fullmatch(model.removeprefix("ft:").partition(":")[0]) is not None


class _StreamedResponse:
    """Takes the whole response from the event that ends a stream of the Responses API."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.whole = False

    def take(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        if "response" in event:
            self.data = event["response"]
            self.whole = event["type"] in ("response.completed", "response.incomplete", "response.failed")
        elif event["type"] == "error":
            self.data = {"error": {"code": event.get("code"), "message": event.get("message")}}
            self.whole = True
        elif (delta := responses.delta(event)) is not None:
            yield delta


@contextmanager
def _failing(failures: Failures) -> Iterator[None]:
    try:
        yield
    except openai.APIStatusError as error:
        raise_alone(_answered(error, failures))
    except (openai.APIConnectionError, httpx2.TransportError, openai.APIResponseValidationError) as error:
        raise_alone(failures.unanswered(error))
    except openai.APIError as error:  # an error event inside a stream
        raise_alone(failures.answered(200, error.message, code=error.code or error.type))
    except UnanswerableError as error:
        raise_alone(failures.unusable(str(error)))
    except ValueError as error:  # the body is not JSON, or not a response
        raise_alone(failures.unanswered(error))
    except openai.OpenAIError as error:
        raise_alone(failures.unusable(str(error)))


def _answered(error: openai.APIStatusError, failures: Failures) -> ModelError:
    failures.headers = error.response.headers
    body = error.body if isinstance(error.body, Mapping) else {}
    message = str(body.get("message") or error.message)
    code = error.code if isinstance(error.code, str) else error.type  # other servers put the status there
    return failures.answered(error.status_code, message, code=code)
