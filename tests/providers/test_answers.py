"""Answers that are faults, on every provider, in an agent that is crashed at every point."""

from __future__ import annotations

from typing import Any

import pytest

from durably.core.messages import AssistantMessage, AssistantPart, RefusalPart, TextPart, ToolCall
from durably.core.model import ModelResponse
from durably.testing import call
from durably.testing.crash.engines import Store
from durably.testing.models.scripted import Reply
from tests.providers.cases import ANTHROPIC, CASES, LITELLM_ANTHROPIC, LITELLM_OPENAI, Case
from tests.providers.rig import ANSWER, rig

pytestmark = pytest.mark.asyncio


def said(*parts: AssistantPart, **fields: Any) -> ModelResponse:
    return ModelResponse(message=AssistantMessage(parts=list(parts)), **fields)


def asking(arguments: str, **fields: Any) -> ModelResponse:
    return said(ToolCall(id="c1", name="find", arguments=arguments), **{"stop_reason": "tool_calls", **fields})


def asking_twice(*ids: str) -> ModelResponse:
    calls = [ToolCall(id=each, name="find", arguments={"order": str(place)}) for place, each in enumerate(ids)]
    return said(*calls, stop_reason="tool_calls")


ANSWERS: dict[str, tuple[Reply, list[str]]] = {
    "torn-json": (asking('{"order": "7'), []),
    "empty-json": (asking(""), []),
    "a-list": (asking("[7]"), []),
    "not-a-number": (asking('{"order": NaN}'), []),
    "cut-call": (asking('{"order": "7', stop_reason="max_tokens"), []),
    "unknown-tool": (call("lose", order="7"), []),
    "missing-ids": (asking_twice("", ""), ["0", "1"]),
    "one-id-twice": (asking_twice("x", "x"), ["0", "1"]),
}
"""What the model says first, and the orders that are then looked up. After it, it answers."""


CALLS = [
    pytest.param(case, *ANSWERS[name], id=f"{case.id}-{name}")
    for case in CASES
    for name in ANSWERS
    # litellm makes up random ids where they are missing, so no two runs are alike.
    if not (name == "missing-ids" and case in (LITELLM_OPENAI, LITELLM_ANTHROPIC))
]


@pytest.mark.parametrize(("case", "answer", "orders"), CALLS)
async def test_calls_that_are_faults(case: Case, answer: Reply, orders: list[str]) -> None:
    async with rig(case, answer, ANSWER, tools=True) as shop:
        await shop.crash()
        heard = [message for message in shop.server.requests[-1].messages if message.role == "tool"]
    for cell in shop.cells:
        assert sorted(cell.found.values()) == orders, "no tool is run with guessed arguments, each call once"
    assert len(heard) == max(1, len(orders))


ENDS: dict[str, tuple[ModelResponse, str, str]] = {
    "empty": (said(), "completed", ""),
    "refusal": (said(RefusalPart(text="No."), stop_reason="refusal"), "refused", ""),
    "max-tokens": (said(TextPart(text="It is on"), stop_reason="max_tokens"), "max_tokens", "It is on"),
}


@pytest.mark.parametrize(("answer", "stop", "text"), ENDS.values(), ids=ENDS.keys())
async def test_answers_that_end_the_run(case: Case, answer: ModelResponse, stop: str, text: str) -> None:
    async with rig(case, answer) as shop:
        await shop.crash()
        backend = shop.open([shop.build()[0]], Store())
        async with backend:
            result = await backend.invoke("shop", {"message": "Where is order 7?"})
    assert (result.stop_reason, result.text, result.iterations) == (stop, text, 1)


@pytest.mark.parametrize("case", [ANTHROPIC, LITELLM_ANTHROPIC], ids=lambda case: case.id)
async def test_a_paused_turn_goes_on(case: Case) -> None:
    async with rig(case, said(TextPart(text="Let me see."), stop_reason="pause"), ANSWER) as shop:
        await shop.crash()
    for cell in shop.cells:
        assert len(cell.records("think:1")) == 1
