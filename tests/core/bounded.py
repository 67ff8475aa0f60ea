"""An agent that asks a person before it pays, and one whose conversation outgrows its model, for any engine."""

from __future__ import annotations

from durably.core import (
    APPROVAL_REQUESTED,
    Agent,
    ApprovalRequest,
    Compaction,
    Context,
    Event,
    approve,
    assistant,
    function,
    reject,
    tool,
)
from durably.core.backend import Backend
from durably.core.errors import ContextWindowExceededError
from durably.core.messages import AssistantMessage, ToolCall, ToolResultMessage
from durably.core.model import ModelRequest, ModelResponse
from durably.testing import ScriptedModel, call


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


clerk = Agent(
    "clerk",
    model=ScriptedModel([call("pay", amount=1), call("pay", amount=1000)], "done"),
    instructions="Pay.",
    tools=[pay],
)


def decide(request: ApprovalRequest) -> Event:
    small = request.arguments["amount"] < 100
    return approve(request.approval) if small else reject(request.approval, "too much")


@function("desk", triggers=[APPROVAL_REQUESTED])
async def desk(ctx: Context[ApprovalRequest]) -> None:
    await ctx.step.send_event("answer", decide(ctx.input))


class SmallWindow:
    """A model that looks at four places, and refuses conversations of more than five messages."""

    name = "small:window"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        if len(request.messages) > 5:
            raise ContextWindowExceededError("too long", provider="small", model="window", status=400)
        if request.turn == 4:
            return ModelResponse(message=assistant(f"{len(request.messages)} messages were left"))
        look = ToolCall(id=f"call_{request.turn}", name="look", arguments={"place": request.turn})
        return ModelResponse(message=AssistantMessage(parts=[look]))


@tool
async def look(place: int) -> str:
    """Look at a place."""
    return f"{place} is empty"


searcher = Agent(
    "searcher",
    model=SmallWindow(),
    instructions="Look.",
    tools=[look],
    compaction=Compaction(keep=2, model=ScriptedModel(lambda _: "nothing so far")),
)

BOUNDED = (clerk, desk, searcher)


async def check_bounded(backend: Backend) -> None:
    """Run both to their ends."""
    run = await backend.start(clerk, "pay")
    result = await run.result()
    said = [(m.content, m.is_error) for m in result.messages if isinstance(m, ToolResultMessage)]
    assert said == [("paid 1", False), ("pay was not run: a person refused it: too much", True)]
    keys = {record.key for record in (await run.history()).steps()}
    assert {"gather[0]/request-pay", "gather[0]/gather[0]/approve-pay", "gather[0]/tool-pay"} <= keys
    assert "gather[1]/tool-pay" not in keys

    run = await backend.start(searcher, "look")
    result = await run.result()
    assert result.text == "5 messages were left"
    assert len(result.messages) == 10
    kept = [record.key for record in (await run.history()).steps() if record.step_id == "compact"]
    assert kept == ["compact"]
