"""The same agent on pydantic-ai, made durable by DBOS on SQLite. Only `make bench` installs it."""

# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbos import DBOS, SetWorkflowID
from pydantic_ai import Agent, ModelMessage, ModelResponse, RunContext, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably.testing.foreign import model_asked, watched
from tests.benchmarks.foreign.world import ANSWER, INSTRUCTIONS, QUESTION, bank, look_up, next_calls, post

__all__ = ["ENGINE", "resume", "start"]

ENGINE = "pydantic-ai on DBOS, SQLite"

HERE = Path()


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """The model of the test."""
    turns: list[Any] = []
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, ToolCallPart):
            turns.append(("call", part.tool_call_id))
        elif isinstance(part, ToolReturnPart):
            turns.append(("result", part.tool_call_id))
    model_asked(turns)
    asked = next_calls(sum(isinstance(each, ModelResponse) for each in messages))
    if not asked:
        return ModelResponse(parts=[TextPart(ANSWER)])
    return ModelResponse(parts=[ToolCallPart(name, {"order_id": "7"}, call_id) for name, call_id in asked])


# What has the effect is a step of DBOS, and is given the id of the call: a step's arguments must be data, so the tool
# around it takes the context.


@DBOS.step()
@watched
async def get_order(order_id: str) -> str:
    """Look up one order."""
    return look_up(order_id)


@DBOS.step()
@watched(by=["order_id"])
async def pay(order_id: str, call_id: str) -> str:
    """Pay the money back."""
    bank(HERE).request(order_id, call_id)
    return "refunded"


@DBOS.step()
@watched(by=["order_id"])
async def mail(order_id: str, call_id: str) -> str:
    """Write to the customer."""
    post(HERE).request(order_id, call_id)
    return "sent"


async def refund(context: RunContext, order_id: str) -> str:
    """Pay the money back."""
    return str(await pay(order_id, context.tool_call_id or ""))


async def send_mail(context: RunContext, order_id: str) -> str:
    """Write to the customer."""
    return str(await mail(order_id, context.tool_call_id or ""))


desk = Agent(
    FunctionModel(answer),
    name="desk",
    instructions=INSTRUCTIONS,
    capabilities=[DBOSDurability()],
    tools=[get_order, refund, send_mail],
)


@DBOS.workflow()
async def run(question: str) -> str:
    """The agent, as a workflow."""
    return str((await desk.run(question)).output)


async def start(folder: Path) -> str:
    """Begin a workflow, or attach to it: DBOS takes up what is unfinished when it is launched."""
    global HERE
    HERE = folder
    url = f"sqlite:///{folder / 'dbos.db'}"
    DBOS(config={"name": "desk", "system_database_url": url, "run_admin_server": False, "log_level": "CRITICAL"})
    DBOS.launch()
    try:
        with SetWorkflowID("run-1"):
            handle = await DBOS.start_workflow_async(run, QUESTION)
        return str(await handle.get_result())
    finally:
        DBOS.destroy()


resume = start
