"""Every other provider, through litellm."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from pydantic import SecretStr

from durably.core import Delta, ModelRequest, ModelResponse, Usage
from durably.providers import chat
from durably.providers.chat_stream import StreamedAnswer
from durably.providers.failures import Failures
from durably.providers.keys import Key
from durably.providers.transcript import Dialect

# Without these, litellm fetches lists from the network while it is imported or first used. Its own copies are as new
# as its release.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")

try:
    import litellm
    import openai
except ImportError as error:
    raise ImportError("LiteLLMModel needs the package litellm: pip install 'durably[litellm]'") from error

__all__ = ["LiteLLMModel"]

PROVIDER = "litellm"

# What litellm prints about its issue tracker at each error is no news to those who read the error.
litellm.suppress_debug_info = True

_KEY_NAME = re.compile(r".*_(API_KEY|TOKEN|SECRET|ACCESS_KEY)")


@dataclass(frozen=True)
class LiteLLMModel:
    """A model by litellm's name for it.

    Request options are litellm's own parameters. ``tool_choice`` may also be a tool's name.

    Args:
        model: Such as ``"gemini/gemini-2.5-pro"``; see https://docs.litellm.ai/docs/providers.
        key: Where the key is found when a call is made; left out, where litellm looks for it in the environment.
        base_url: Another address.
        timeout: Seconds to wait for a connection, and then for each next piece of the answer. How long the whole call
            may take is said by ``Agent(model_timeout=)``.
    """

    model: str
    _: KW_ONLY
    key: Key | None = None
    base_url: str | None = None
    timeout: float = 600.0

    @property
    def name(self) -> str:
        """Such as ``"litellm:gemini/gemini-2.5-pro"``."""
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
            return self._finish(
                made.model_dump(mode="json", exclude_none=True, warnings=False), request, origin, failures
            )

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """The pieces of the answer, then the whole.

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
            async for chunk in chunks:
                for delta in whole.take(chunk.model_dump(mode="json", exclude_none=True, warnings=False)):
                    yield delta
            # litellm ends every stream with a reason to finish, one it made up where the provider gave none.
            if chunks.received_finish_reason is None:
                raise failures.cut()
            response = self._finish(whole.data, request, origin, failures)
        yield response

    def _origin(self) -> str:
        return f"{PROVIDER}:{litellm.get_llm_provider(self.model, api_base=self.base_url)[1]}"

    def _key(self) -> tuple[str | None, Failures]:
        if self.key is None:
            # litellm picks the key by itself, so whatever looks like one is masked.
            secrets = [value for name, value in os.environ.items() if _KEY_NAME.fullmatch(name)]
            return None, Failures(PROVIDER, self.model, *secrets)
        try:
            found = self.key.find()
        except LookupError as error:
            raise Failures(PROVIDER, self.model).unusable(str(error)) from None
        if not isinstance(found, SecretStr):
            raise Failures(PROVIDER, self.model).unusable("litellm takes a key from a resource, not a client")
        return found.get_secret_value(), Failures(PROVIDER, self.model, found)

    def _arguments(self, request: ModelRequest, key: str | None, origin: str) -> dict[str, Any]:
        body = chat.request_body(
            request,
            model=self.model,
            dialect=replace(_DIALECT, origin=origin),
            native_output=litellm.supports_response_schema(self.model),
        )
        # The engine alone retries: of its two ways to do so, neither is left to litellm.
        quiet = {"num_retries": 0, "max_retries": 0}
        return {**body, **quiet, "timeout": self.timeout, "api_key": key, "base_url": self.base_url}

    def _finish(self, data: dict[str, Any], request: ModelRequest, origin: str, failures: Failures) -> ModelResponse:
        for choice in data.get("choices") or ():
            message = choice.get("message") or {}
            refusal = (message.get("provider_specific_fields") or {}).get("refusal")
            if refusal:
                message["refusal"] = refusal
        response = chat.answer(data, request, origin=origin)
        request_id = failures.headers.get("request-id") or failures.headers.get("x-request-id")
        return response.model_copy(update={"cost": self._price(response.usage), "request_id": request_id})

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


_DIALECT: Dialect = replace(
    chat.DIALECT,
    takes_thinking=lambda part: part.signature is not None,
    own_call_ids=re.compile(r"\S+"),  # litellm keeps what belongs to a call in its id, for providers that want it back
    text_arguments=False,
    user_first=True,
)


def _headers(made: Any) -> Mapping[str, str]:
    given = (getattr(made, "_hidden_params", None) or {}).get("additional_headers") or {}
    return {name.removeprefix("llm_provider-"): str(value) for name, value in given.items()}


@contextmanager
def _failing(failures: Failures) -> Iterator[None]:
    try:
        yield
    except openai.OpenAIError as error:  # litellm's errors are all made from these
        failures.headers = getattr(error, "litellm_response_headers", None) or failures.headers
        status = getattr(error, "status_code", None)
        if status is None:
            raise failures.unanswered(error) from None
        too_long = isinstance(error, litellm.exceptions.ContextWindowExceededError)
        raise failures.answered(status, str(error), too_long=too_long) from None
    except ValueError as error:  # no answer in the response
        raise failures.unanswered(error) from None
