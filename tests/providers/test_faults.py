"""Each way a provider can fail, on each provider: what the error says."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import anthropic
import openai
import pytest

from durably.core import ModelError, user
from durably.core.errors import ContextWindowExceededError
from durably.testing.models.llm_server import Fault, LLMServer
from tests.providers.cases import ANTHROPIC, CHAT, LITELLM_ANTHROPIC, Case, ask, question

pytestmark = pytest.mark.asyncio

RETRIED = {
    "408": Fault.answer(408),
    "409": Fault.answer(409),
    "429": Fault.answer(429, retry_after="7"),
    "500": Fault.answer(500),
    "503": Fault.answer(503),
    "529": Fault.answer(529),
    "reset": Fault.reset(),
    "lost": Fault.lost(),
    "cut": Fault.cut(),
    "end": Fault.end(),
    "error-event": Fault.error_event(),
    "garbage": Fault.garbage(),
}
FINAL = {
    "400": Fault.answer(400),
    "401": Fault.answer(401),
    "403": Fault.answer(403),
    "404": Fault.answer(404),
    "400-garbage": Fault.garbage(400),
    "too-long": Fault.too_long(),
}


def faults(table: dict[str, Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", table.values(), ids=table.keys())


# -- what the error says


async def failure(case: Case, fault: Fault, streamed: bool, *, timeout: float = 30.0) -> ModelError:
    async with LLMServer("never", faults=[fault]) as server:
        with pytest.raises(ModelError) as raised:
            await ask(case.model(server, timeout=timeout), question(user("?")), streamed)
        assert len(server.received) == 1, "nobody but the engine retries"
    assert raised.value.provider == case.id.partition("-")[0]
    assert raised.value.model
    return raised.value


class _EagerAnthropic(anthropic.AsyncAnthropic):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "max_retries": 2})


class _EagerOpenAI(openai.AsyncOpenAI):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "max_retries": 2})


@pytest.mark.parametrize("broken", [ANTHROPIC, CHAT], ids=lambda case: case.id)
async def test_a_client_that_retries_underneath_is_noticed(broken: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic, "AsyncAnthropic", _EagerAnthropic)
    monkeypatch.setattr(openai, "AsyncOpenAI", _EagerOpenAI)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):  # its second request is answered
        await failure(broken, Fault.answer(503), streamed=False)


@faults(RETRIED)
async def test_retriable(case: Case, fault: Fault, streamed: bool) -> None:
    error = await failure(case, fault, streamed)
    assert error.retriable
    assert error.retry_after == (7.0 if fault.status == 429 else None)
    if fault.kind == "status":
        assert error.request_id
        assert error.status == fault.status
    elif fault.kind == "error_event":
        assert error.status == (200 if streamed else 500)
        assert error.request_id
    else:
        assert error.status is None, "there was no answer, or not all of it"


@faults(FINAL)
async def test_final(case: Case, fault: Fault, streamed: bool) -> None:
    error = await failure(case, fault, streamed)
    assert not error.retriable
    assert error.request_id
    assert isinstance(error, ContextWindowExceededError) is (fault.kind == "too_long")
    assert error.status == (400 if fault.kind == "too_long" else fault.status)


TOO_LONG = (
    "prompt is too long: 208310 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length",
    "This model's maximum context length is 65536 tokens. However, you requested 87731 tokens.",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
)


@pytest.mark.parametrize("message", TOO_LONG)
async def test_a_conversation_that_is_too_long_is_known_by_the_providers_sentence(case: Case, message: str) -> None:
    assert isinstance(await failure(case, Fault.answer(400, message=message), False), ContextWindowExceededError)
    code = "exceed_context_size_error"  # as llama.cpp has it
    if case is not LITELLM_ANTHROPIC:  # from whose errors litellm drops the code
        assert isinstance(await failure(case, Fault.answer(400, code=code), False), ContextWindowExceededError)


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_the_sentence_never_decides_whether_to_retry(case: Case, status: int) -> None:
    for message in TOO_LONG:
        error = await failure(case, Fault.answer(status, message=message), False)
        assert error.retriable is (status != 401)
        assert type(error) is ModelError


async def test_other_words_about_length_are_not_that_sentence(case: Case) -> None:
    for message in ("tools.0: the prompt is too long", "max_tokens: 9000 > 8192, the maximum", "too many tokens: 400"):
        error = await failure(case, Fault.answer(400, message=message), False)
        assert not error.retriable
        if not case.id.startswith("litellm"):  # which looks for fewer words
            assert type(error) is ModelError


FINAL_CODES = ("invalid_request_error", "insufficient_quota", "invalid_prompt")


@pytest.mark.parametrize("code", FINAL_CODES)
async def test_an_error_in_a_stream_may_be_final(case: Case, code: str) -> None:
    error = await failure(case, Fault.error_event(code=code), True)
    # litellm lets go of the code of Claude's, so it looks like one that passes; the attempts are bounded all the same.
    assert error.retriable is (case is LITELLM_ANTHROPIC)
    assert error.status == 200


async def test_a_quota_that_is_used_up_does_not_come_back(case: Case, streamed: bool) -> None:
    error = await failure(case, Fault.answer(429, code="insufficient_quota"), streamed)
    assert error.retriable is (case is LITELLM_ANTHROPIC)  # as above; Anthropic itself says it with status 402
    assert error.status == 429


WAITS: dict[str, tuple[dict[str, str], float]] = {
    "seconds": ({"retry_after": "7"}, 7.0),
    "milliseconds": ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
    "a date gone by": ({"retry_after": "Wed, 01 Jan 2020 00:00:30 GMT"}, 0.0),
    "anthropic": (
        {"anthropic_ratelimit_tokens_remaining": "0", "anthropic_ratelimit_tokens_reset": "2020-01-01T00:01:00Z"},
        0.0,
    ),
    "openai": ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "6m0.5s"}, 360.5),
}


@pytest.mark.parametrize(("headers", "seconds"), WAITS.values(), ids=WAITS.keys())
async def test_the_provider_says_how_long_to_wait(
    case: Case, headers: dict[str, str], seconds: float, streamed: bool
) -> None:
    status = 503 if streamed else 429
    assert (await failure(case, Fault.answer(status, **headers), streamed)).retry_after == seconds


async def test_no_provider_is_waited_for_longer_than_an_hour(case: Case) -> None:
    soon = formatdate(time.time() + 1800, usegmt=True)
    error = await failure(case, Fault.answer(429, retry_after=soon), False)
    assert 1700 < (error.retry_after or 0) < 1900
    error = await failure(case, Fault.answer(429, retry_after="Sun, 01 Jan 2090 00:00:00 GMT"), False)
    assert error.retry_after == 3600


async def test_read_timeout(case: Case, streamed: bool) -> None:
    error = await failure(case, Fault.hang(), streamed, timeout=0.3)
    assert error.retriable


async def test_no_connection(case: Case, streamed: bool) -> None:
    async with LLMServer("never") as server:
        model = case.model(server)
    with pytest.raises(ModelError) as raised:
        await ask(model, question(user("?")), streamed)
    assert raised.value.retriable


async def test_no_key(case: Case, streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DURABLY_TEST_KEY")
    async with LLMServer("never") as server:
        with pytest.raises(ModelError, match="DURABLY_TEST_KEY") as raised:
            await ask(case.model(server), question(user("?")), streamed)
        assert not server.received
    assert not raised.value.retriable


async def test_the_key_is_masked_in_errors(case: Case, streamed: bool, key: str) -> None:
    error = await failure(case, Fault.answer(401, message=f"the key {key} is not known"), streamed)
    assert "is not known" in str(error)
    assert key not in str(error)
    assert key not in repr(error.__cause__)


async def test_the_server_may_overrule_its_status(streamed: bool) -> None:
    assert not (await failure(ANTHROPIC, Fault.answer(500, x_should_retry="false"), streamed)).retriable
    assert (await failure(ANTHROPIC, Fault.answer(400, x_should_retry="true"), streamed)).retriable
