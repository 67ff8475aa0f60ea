"""The models of all other providers, through litellm.

Owns: sending, and what litellm's exceptions mean. Does not own: the format (``chat.py``).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any

from pydantic import SecretStr

from durably.core import ModelError
from durably.core.messages import ContentPart, FilePart
from durably.core.model import Delta, ModelRequest, ModelResponse, Usage
from durably.core.server_tools import ServerTool
from durably.providers import chat
from durably.providers.answers import UnanswerableError
from durably.providers.anthropic_messages import MAX_UNIONS
from durably.providers.cache_key import conversation_key
from durably.providers.chat_cache import breakpoints_of, wants_breakpoints
from durably.providers.chat_stream import StreamedAnswer
from durably.providers.dialect import Dialect
from durably.providers.documents import OFFICE
from durably.providers.failures import Failures, raise_alone
from durably.providers.keys import Key

# Without these, litellm fetches lists from the network when it is imported or first used. The copies in the package are
# as new as its release.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")

try:
    import httpx
    import litellm
    import openai
    from litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini import ModelResponseIterator as GeminiStream
except ImportError as error:
    raise ImportError("LiteLLMModel needs the package litellm: pip install 'durably[litellm]'") from error

__all__ = ["LiteLLMModel"]

PROVIDER = "litellm"

# Without this, litellm prints a hint to its issue tracker at each error.
litellm.suppress_debug_info = True

_KEY_NAME = re.compile(r".*_(API_KEY|TOKEN|SECRET|ACCESS_KEY)")

_LOST = (httpx.TransportError, json.JSONDecodeError, StopAsyncIteration)
"""The causes of litellm's errors that mean a missing or partial answer."""


@dataclass(frozen=True)
class LiteLLMModel:
    """A model by litellm's name for it.

    Request options are litellm's own parameters. ``tool_choice`` may also be a tool's name.

    Args:
        model: The model, such as ``"gemini/gemini-2.5-pro"``. See https://docs.litellm.ai/docs/providers.
        key: The place where each call looks the key up. Default: litellm looks for it in the environment.
        base_url: The address of another server.
        cache: Whether the provider keeps the conversation in its prompt cache, where it must be told: Claude and Nova
            by breakpoints, OpenAI by a key for each conversation.
        timeout: Seconds to wait for a connection, and then for each next piece of the answer.
            ``Agent(model_timeout=)`` limits the whole call.
    """

    model: str
    _: KW_ONLY
    key: Key | None = None
    base_url: str | None = None
    cache: bool = True
    timeout: float = 600.0

    @property
    def name(self) -> str:
        """The provider and the model, such as ``"litellm:gemini/gemini-2.5-pro"``."""
        return f"{PROVIDER}:{self.model}"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request.

        Raises:
            ModelError: If the provider refused or failed.
        """
        key, failures = self._key()
        with _failing(failures):
            origin = self._origin()
            made: Any = await litellm.acompletion(**self._arguments(request, key, origin))
            failures.headers = _headers(made)
            with failures.reading():
                data = made.model_dump(mode="json", exclude_none=True, warnings=False)
                return self._finish(data, request, origin, failures)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """Yield the pieces of the answer, and at the end the whole.

        Raises:
            ModelError: If the provider refused or failed, or the stream was cut.
        """
        key, failures = self._key()
        whole = StreamedAnswer()
        with _failing(failures):
            origin = self._origin()
            arguments = {"stream_options": {"include_usage": True}, **self._arguments(request, key, origin)}
            chunks: Any = await litellm.acompletion(**arguments, stream=True)
            failures.headers = _headers(chunks)
            refused: list[str] = []
            if isinstance(chunks.completion_stream, openai.AsyncStream):
                chunks.completion_stream = _overheard(chunks.completion_stream, refused)
            ended: list[str] = []
            if chunks.completion_stream is None:  # on some routes the request goes out with the first look at it
                await chunks.fetch_stream()
            stream = chunks.completion_stream
            if isinstance(stream, GeminiStream):
                lines = stream.streaming_response
                assert isinstance(lines, AsyncIterator)  # as ``acompletion`` gave it
                stream.streaming_response = _noted(lines, ended)
                aiter(stream)  # which takes it up
            async for chunk in chunks:
                for delta in failures.read_piece(whole.take, chunk, exclude_none=True):
                    yield delta
            if not (ended if isinstance(stream, GeminiStream) else _finish_reason(chunks)):
                raise failures.cut()
            with failures.reading():
                told = whole.data["choices"][0]["message"].get("refusal")
                read = [] if told else list(whole.take({"choices": [{"delta": {"refusal": "".join(refused)}}]}))
            for delta in read:
                yield delta
            with failures.reading():
                response = self._finish(whole.data, request, origin, failures)
        yield response

    def server_tool_gap(self, tool: ServerTool) -> str:
        """Return why a tool of the provider's own cannot be used: litellm keeps only the text of what it did."""
        return "litellm does not give back what such a tool did: use AnthropicModel or OpenAIModel with a client"

    def _origin(self) -> str:
        return f"{PROVIDER}:{litellm.get_llm_provider(self.model, api_base=self.base_url)[1]}"

    def _key(self) -> tuple[str | None, Failures]:
        if self.key is None:
            # litellm picks the key by itself, so every variable that looks like one is masked.
            secrets = [value for name, value in os.environ.items() if _KEY_NAME.fullmatch(name)]
            failures = Failures(PROVIDER, self.model, *secrets)
            missing = self._missing_key()
            if missing is not None:
                raise failures.unusable(f"no key: set the environment variable {missing} on the worker, or give key=")
            return None, failures
        try:
            found = self.key.find()
        except LookupError as error:
            raise_alone(Failures(PROVIDER, self.model).unusable(str(error)))
        if not isinstance(found, SecretStr):
            raise Failures(PROVIDER, self.model).unusable("litellm takes a key from a resource, not a client")
        return found.get_secret_value(), Failures(PROVIDER, self.model, found)

    def _missing_key(self) -> str | None:
        """The variable that the provider's key must stand in, if that is known and it does not."""
        if self.base_url is not None or litellm.api_key is not None:
            return None
        missing = litellm.validate_environment(self.model)["missing_keys"]
        # A provider with other variables may find its credentials elsewhere: a role of the machine, a login.
        return " or ".join(missing) if all(name.endswith("_API_KEY") for name in missing) and missing else None

    def _arguments(self, request: ModelRequest, key: str | None, origin: str) -> dict[str, Any]:
        route = origin.partition(":")[2]
        if request.options.get("background"):
            raise UnanswerableError(
                "litellm makes no answers in the background that could be waited for: use OpenAIModel, with "
                "api='responses'"
            )
        strict = [spec.name for spec in request.tools if spec.strict]
        if strict and wants_breakpoints(self.model, route):
            raise UnanswerableError(
                f"the tool {strict[0]!r} is strict, which litellm does not pass on to Claude: take strict=True away, "
                "or use AnthropicModel"
            )
        marks = self.cache and wants_breakpoints(self.model, route) and not _has_own_breakpoints(request)
        body = chat.request_body(
            request,
            model=self.model,
            dialect=dialect(self.model, origin),
            native_output=litellm.supports_response_schema(self.model),
            cache=breakpoints_of(self.model) if marks else None,
        )
        if self.cache and (route == "azure" or (route == "openai" and self.base_url is None)):
            body.setdefault("prompt_cache_key", conversation_key(request))
        # The engine alone retries. litellm has two ways to do so, and both are off.
        quiet = {"num_retries": 0, "max_retries": 0}
        return {**body, **quiet, "timeout": self.timeout, "api_key": key, "base_url": self.base_url}

    def _finish(self, data: dict[str, Any], request: ModelRequest, origin: str, failures: Failures) -> ModelResponse:
        error = chat.error_of(data)
        if error:
            raise failures.in_body(error)
        response = chat.answer(data, request, origin=origin, server=_server(origin))
        request_id = failures.headers.get("request-id") or failures.headers.get("x-request-id")
        cost = self._price(response.usage) if _has_list_price(data) else None
        known: dict[str, Any] = {"cost": cost, "request_id": request_id}
        own = (data["choices"][0].get("message") or {}).get("provider_specific_fields") or {}
        if own.get("stop_reason") == "pause_turn":  # litellm calls it "length"
            if own.get("server_tool_calls"):
                raise failures.unusable(
                    "the turn was paused in a tool of the provider's own, and litellm does not give back what it takes "
                    "to go on: use durably.providers.anthropic for such tools"
                )
            known["stop_reason"] = "pause"
        return response.model_copy(update=known)

    def _price(self, usage: Usage) -> float | None:
        try:
            costs = litellm.cost_per_token(
                model=self.model,
                prompt_tokens=usage.input_tokens,
                completion_tokens=usage.output_tokens,
                cache_read_input_tokens=usage.cached_tokens,
                cache_creation_input_tokens=usage.cache_write_tokens,
            )
        except Exception:  # it has no narrower type for a model that its list does not know
            return None
        return float(sum(costs))


def dialect(model: str, origin: str) -> Dialect:
    """Return what litellm can express on the way to a model.

    Args:
        model: The model, by litellm's name.
        origin: The provider that its messages are marked with.
    """
    claude = breakpoints_of(model) == "everywhere"
    bedrock = origin.partition(":")[2].startswith("bedrock")
    return replace(
        chat.DIALECT,
        origin=origin,
        file=partial(_file, hears=litellm.supports_audio_input(model), reads=_BEDROCK_READS if bedrock else ()),
        takes_thinking=lambda part: part.signature is not None or chat.is_thought_of(part, _server(origin)),
        refusals=False,  # litellm drops them on the way to any provider but OpenAI
        own_call_ids=re.compile(r"\S+"),  # litellm puts data into the ids that some providers want back
        text_arguments=False,
        user_first=True,
        recursive_schemas=not claude,
        schema_unions=MAX_UNIONS if claude else None,
        may_end=lambda message: False,  # Claude's newer models and Mistral's refuse it
    )


_BEDROCK_READS = ("docx", "xlsx")
"""The office documents that Bedrock takes as files:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html."""


def _file(part: FilePart, *, hears: bool, reads: Collection[str]) -> ContentPart:
    """Return a file as a route takes it, or a text in its place.

    Args:
        part: The file.
        hears: Whether the model takes sound. litellm silently drops it on the way to one that does not.
        reads: The office documents that it takes.
    """
    kind = OFFICE.get(part.media_type)
    if part.data and kind in reads:
        return FilePart(media_type=part.media_type, data=part.data, name=part.name or f"file.{kind}")
    return chat.DIALECT.file(part) if hears else chat.image_or_pdf(part)


def _has_own_breakpoints(request: ModelRequest) -> bool:
    return "cache_control" in str(request.options.get("tools")) or "cache_control_injection_points" in request.options


_TAKES_REASONING = frozenset({"cerebras", "deepseek", "groq", "moonshot", "openrouter", "zai"})
"""The providers that want the reasoning of a turn back, as litellm calls them."""


def _server(origin: str) -> str | None:
    return origin if origin.partition(":")[2] in _TAKES_REASONING else None


def _has_list_price(data: Mapping[str, Any]) -> bool:
    """Whether an answer costs what the price list says of its tokens: no other service tier."""
    tiers = data.get("service_tier"), (data.get("usage") or {}).get("service_tier")
    return all(tier in (None, "auto", "default", "standard") for tier in tiers)


def _headers(made: Any) -> Mapping[str, str]:
    given = (getattr(made, "_hidden_params", None) or {}).get("additional_headers") or {}
    return {name.removeprefix("llm_provider-"): str(value) for name, value in given.items()}


async def _overheard(chunks: openai.AsyncStream[Any], refused: list[str]) -> AsyncIterator[Any]:
    """Yield OpenAI's chunks to litellm, and collect refusals from them, which litellm drops."""
    async with chunks:
        async for chunk in chunks:
            refused += [choice.delta.refusal for choice in chunk.choices if choice.delta and choice.delta.refusal]
            yield chunk


_FINISH_REASONS = ("received_finish_reason", "intermittent_finish_reason", "received_any_finish_reason")


def _finish_reason(chunks: Any) -> bool:
    """Whether the provider itself said why its stream stopped.

    litellm ends every stream with a finish reason, and makes one up if the provider gave none. What the provider gave
    stands in one of these attributes: which one depends on the route, and on whether chunks came after it.
    """
    return any(getattr(chunks, name, None) for name in _FINISH_REASONS)


async def _noted(lines: AsyncIterator[str], ended: list[str]) -> AsyncIterator[str]:
    """Yield Gemini's lines to litellm, and collect those that say why it stopped. litellm takes each for the last."""
    async for line in lines:
        if '"finishReason"' in line or '"blockReason"' in line:
            ended.append(line)
        yield line


@contextmanager
def _failing(failures: Failures) -> Iterator[None]:
    outer = sys.exception()
    try:
        yield
    except openai.OpenAIError as error:  # the base of all of litellm's errors
        raise_alone(_answered(error, list(_layers(error, outer)), failures))
    except UnanswerableError as error:
        raise_alone(failures.unusable(str(error)))
    except ValueError as error:  # the response holds no answer
        raise_alone(failures.unanswered(error))


def _layers(error: BaseException, outer: BaseException | None) -> Iterator[BaseException]:
    """Yield an error of litellm's and its causes, up to the error that was being handled before the call."""
    at: BaseException | None = error
    while at is not None and at is not outer:
        yield at
        at = getattr(at, "original_exception", None) or at.__context__


def _answered(error: openai.OpenAIError, layers: list[BaseException], failures: Failures) -> ModelError:
    # litellm gives every error a status, and some answers a wrong one. The first cause has the right one.
    given = getattr(error, "status_code", None)
    status = given if isinstance(given, int) else None  # of an error under status 200, litellm takes its code for one
    answered = next((layer.response for layer in layers if isinstance(layer, httpx.HTTPStatusError)), None)
    lost = next((layer for layer in layers if isinstance(layer, _LOST)), None)
    if answered is not None:
        status, failures.headers = answered.status_code, answered.headers
    elif status is None or (lost is not None and (status == 408 or status >= 500)):
        return failures.cut() if isinstance(lost, StopAsyncIteration) else failures.unanswered(lost or error)
    elif isinstance(error, litellm.exceptions.MidStreamFallbackError):
        status = 200  # an error event
    else:
        failures.headers = getattr(error, "litellm_response_headers", None) or failures.headers
    bodies = [body for layer in layers if isinstance(body := getattr(layer, "body", None), Mapping)]
    codes = [body.get(key) for body in bodies for key in ("code", "type")]
    code = next((each for each in codes if isinstance(each, str)), None)
    # litellm finds this error by words, also in failures of the server. With other statuses it must stay retriable.
    too_long = isinstance(error, litellm.exceptions.ContextWindowExceededError) and status in (400, 413, 422)
    return failures.answered(status, str(error), code=code, too_long=too_long)
