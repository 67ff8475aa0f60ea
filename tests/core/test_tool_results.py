"""Results of tools that have more to say than text."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from durably.core import Agent, AgentInput, Context, MemorySessions, ToolContext, ToolResult, function, tool
from durably.core.messages import FilePart, TextPart
from durably.testing import ScriptedModel, call
from tests.conftest import Open

pytestmark = pytest.mark.asyncio

PICTURE = FilePart(media_type="image/png", data="aGk=", name="cup.png")


@tool
async def show() -> ToolResult:
    """Show."""
    return ToolResult(content=[TextPart(text="A cup:"), PICTURE], metadata={"id": 7})


@tool
def fail() -> ToolResult:
    """Fail."""
    return ToolResult(content="no cup", is_error=True, metadata={"code": 404})


@tool(steps=True)
async def code(ctx: ToolContext) -> ToolResult:
    """Code."""
    return ToolResult(content="two cups", metadata={"steps": 0})


@function("child")
async def child(ctx: Context[None]) -> ToolResult:
    return ToolResult(content=[PICTURE], metadata={"child": True})


async def test_the_model_sees_the_content_and_programs_the_metadata(open_backend: Open) -> None:
    model = ScriptedModel(call("show"), [call("fail"), call("code"), call("child")], "Done.")
    sessions = MemorySessions()
    agent = Agent("a", model=model, instructions="", tools=[show, fail, code, child], sessions=sessions)
    async with open_backend([agent]) as backend:
        run = await backend.start(agent, AgentInput(message="go", session_key="s"))
        result = await run.result()
        trace = await run.trace()
    expected = [
        ([TextPart(text="A cup:"), PICTURE], False, {"id": 7}),
        ("no cup", True, {"code": 404}),
        ("two cups", False, {"steps": 0}),
        ([PICTURE], False, {"child": True}),
    ]
    assert told(result.messages) == expected
    assert told(model.requests[-1].messages) == expected
    assert told(await sessions.load("s")) == expected
    assert told([entry.message for entry in trace.conversations[0].entries]) == expected


def told(messages: Any) -> list[Any]:
    return [(each.content, each.is_error, each.metadata) for each in messages if each and each.role == "tool"]


async def test_it_takes_no_other_field() -> None:
    wrong: dict[str, Any] = {"content": "x", "meta": {}}
    with pytest.raises(ValidationError, match="meta"):
        ToolResult(**wrong)
