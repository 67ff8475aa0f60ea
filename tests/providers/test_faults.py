"""Each way a provider can fail, on each provider: what the error says, and an agent run that crashes at every point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.backends.memory import MemoryJournal
from durably.core import (
    Agent,
    AgentResult,
    AssistantMessage,
    ContextWindowExceededError,
    InvokeError,
    ModelError,
    ModelResponse,
    RefusalPart,
    StepRecord,
    StreamingModel,
    TextPart,
    ToolCall,
    current_step,
    tool,
    user,
)
from durably.core.errors import Signal
from durably.core.messages import AssistantPart
from durably.core.model import StreamedDelta
from durably.core.steps import Point
from durably.testing import call
from durably.testing.llm_server import Fault, LLMServer
from durably.testing.scripted import Reply
from tests.providers.cases import ANTHROPIC, LITELLM_ANTHROPIC, Case, ask, question

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


# -- an agent run


class Crash(Signal):
    """The process is gone."""


@dataclass
class Shop:
    """An agent with one tool, and what can be seen of it from outside.

    Attributes:
        keys: The idempotency key of each execution of the tool.
        shown: What the sink got.
    """

    model: StreamingModel
    streamed: bool
    keys: list[str] = field(default_factory=list)
    shown: list[StreamedDelta] = field(default_factory=list)

    def agent(self) -> Agent:
        @tool
        async def find(order: str) -> str:
            """Find an order."""
            self.keys.append(current_step().idempotency_key)
            return f"order {order} is on its way"

        sink = self.shown.append if self.streamed else None
        return Agent("shop", model=self.model, instructions="Be brief.", tools=[find], sink=sink)


async def run(
    shop: Shop, journal: MemoryJournal, resources: dict[str, Any], *, crash_at: int | None = None
) -> AgentResult | None:
    """Run the agent, or what is left of its run; ``None`` if it crashed at the n-th point."""
    passed = 0

    def probe(point: Point) -> None:
        nonlocal passed
        passed += 1
        if passed == crash_at:
            raise Crash

    agent = shop.agent()
    backend = MemoryBackend([agent], journal=journal, resources=resources)
    backend.probe = probe
    try:
        async with backend:
            started = await backend.start(agent, "Where is order 7?", run_id="run")
            return await started.result()
    except Crash:
        return None


def records(journal: MemoryJournal, step: str) -> list[StepRecord]:
    return [record for record in journal.records("run") if record.key == step]


SCRIPT: tuple[Reply, ...] = (call("find", order="7"), "Order 7 is on its way.")


@faults(RETRIED)
async def test_an_agent_outlives_a_fault_and_a_crash_at_any_point(case: Case, fault: Fault) -> None:
    streamed = fault.kind in ("cut", "end", "error_event", "lost")
    async with LLMServer(*SCRIPT) as server, case.reused(server) as (model, resources):
        crash_at, crashed, reference = 0, True, ""
        while crashed:
            server.fail(fault)
            server.received.clear()
            shop, journal = Shop(model, streamed), MemoryJournal()
            result = await run(shop, journal, resources, crash_at=crash_at or None)
            crashed = result is None or crash_at == 0
            result = result or await run(shop, journal, resources)
            assert result is not None
            transcript = repr(result.messages)
            reference = reference or transcript
            assert transcript == reference  # L1
            check(shop, journal, fault, crashes=int(crash_at > 0))
            assert len(server.received) <= 3 + int(crash_at > 0)
            crash_at += 1
        assert crash_at > 20, "every step has points"


def check(shop: Shop, journal: MemoryJournal, fault: Fault, *, crashes: int) -> None:
    assert len(set(shop.keys)) == 1  # L9
    assert len(shop.keys) <= 1 + crashes  # L3
    first, second = records(journal, "think"), records(journal, "think:1")
    assert [record.status for record in [*first[-1:], *second]] == ["completed", "completed"]
    attempts = [record.attempt for record in first]
    assert attempts == sorted(set(attempts))  # no two executions have one number
    failed = [record for record in first if record.status == "retrying"]
    assert len(failed) <= 1
    for record in failed:
        assert record.error is not None
        assert record.error["type"] == "ModelError"
        assert record.due is not None
        if fault.status == 429:
            assert record.due - record.at == pytest.approx(7.0)
    if not crashes:
        assert len(failed) == 1
    listened = {(delta.step, delta.attempt): "" for delta in shop.shown}
    for delta in shop.shown:
        listened[delta.step, delta.attempt] += delta.delta.text
    for step, record in (("think", first[-1]), ("think:1", second[-1])):
        if shop.shown:  # the last attempt a listener saw is whole
            assert listened[step, record.attempt] in ('{"order": "7"}', "Order 7 is on its way.")


@faults({"400": FINAL["400"], "too-long": FINAL["too-long"]})
async def test_an_agent_fails_once_and_for_good(case: Case, fault: Fault) -> None:
    async with LLMServer(*SCRIPT) as server, case.reused(server) as (model, resources):
        server.fail(fault)
        journal = MemoryJournal()
        with pytest.raises(InvokeError):
            await run(Shop(model, False), journal, resources)
        [failed] = records(journal, "think")
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error["error_type"] == (
            "ContextWindowExceededError" if fault.kind == "too_long" else "ModelError"
        )
        assert len(server.received) == 1


async def test_attempts_are_used_up_across_a_crash(case: Case) -> None:
    async with LLMServer(*SCRIPT) as server, case.reused(server) as (model, resources):
        server.fail(*[Fault.answer(503)] * 9)
        journal = MemoryJournal()
        assert await run(Shop(model, False), journal, resources, crash_at=14) is None
        with pytest.raises(InvokeError, match="after 4 attempts"):
            await run(Shop(model, False), journal, resources)
        assert [record.status for record in records(journal, "think")] == ["retrying"] * 3 + ["failed"]


# -- answers that are faults


def said(*parts: AssistantPart, **fields: Any) -> ModelResponse:
    return ModelResponse(message=AssistantMessage(parts=list(parts)), **fields)


async def outcome(case: Case, *script: Reply) -> tuple[AgentResult, Shop, LLMServer]:
    async with LLMServer(*script) as server, case.reused(server) as (model, resources):
        shop = Shop(model, False)
        result = await run(shop, MemoryJournal(), resources)
        assert result is not None
        return result, shop, server


def errors(result: AgentResult) -> Sequence[bool]:
    return [message.is_error for message in result.messages if message.role == "tool"]


@pytest.mark.parametrize("arguments", ['{"order": "7', "", "[7]", '{"order": NaN}'])
async def test_malformed_arguments_are_never_run(case: Case, arguments: str) -> None:
    broken = said(ToolCall(id="c1", name="find", arguments=arguments), stop_reason="tool_calls")
    result, shop, _ = await outcome(case, broken, "Sorry.")
    assert shop.keys == []
    assert errors(result) == [True]
    assert result.text == "Sorry."


async def test_an_unknown_tool_is_reported(case: Case) -> None:
    result, shop, _ = await outcome(case, call("lose", order="7"), "Sorry.")
    assert shop.keys == []
    assert errors(result) == [True]


async def test_calls_with_one_id_are_answered_apart(case: Case) -> None:
    calls = [ToolCall(id=each, name="find", arguments={"order": str(n)}) for n, each in enumerate(["", "x", "x"])]
    _, shop, server = await outcome(case, said(*calls, stop_reason="tool_calls"), "Done.")
    assert len(set(shop.keys)) == 3
    answered = [message.content for message in server.requests[1].messages if message.role == "tool"]
    assert answered == [f"order {n} is on its way" for n in range(3)]


async def test_empty_refused_and_cut_answers_end_the_run(case: Case) -> None:
    result, _, _ = await outcome(case, said())
    assert (result.text, result.stop_reason, result.iterations) == ("", "completed", 1)
    result, _, _ = await outcome(case, said(RefusalPart(text="No."), stop_reason="refusal"))
    assert result.stop_reason == "refused"
    result, _, _ = await outcome(case, said(TextPart(text="It is on"), stop_reason="max_tokens"))
    assert result.text == "It is on"


async def test_a_paused_turn_goes_on() -> None:
    result, _, _ = await outcome(ANTHROPIC, said(TextPart(text="Searching"), stop_reason="pause"), "Found.")
    assert (result.text, result.iterations) == ("Found.", 2)


async def test_a_cut_call_is_never_run(case: Case) -> None:
    cut = said(ToolCall(id="c1", name="find", arguments='{"order": "7'), stop_reason="max_tokens")
    result, shop, _ = await outcome(case, cut, "Sorry.")
    assert shop.keys == []
    assert errors(result) == [True]
