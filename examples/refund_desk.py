"""A desk for refunds: an agent that looks things up at once, asks a colleague, and needs a person before money moves.

Its models answer from a script, so it runs without a key::

    $ durably start refund-desk --input '"Where is my money? Order 1042."' --backend examples.refund_desk:backend
    $ durably ui --backend examples.refund_desk:backend
"""

from __future__ import annotations

from typing import Any

from durably.backends import SQLiteBackend
from durably.core import Agent, RetryPolicy, current_step, delegate, tool
from durably.core.messages import AssistantMessage, AssistantPart, TextPart, ToolCall
from durably.core.model import ModelRequest, ModelResponse, Usage
from durably.testing import ScriptedModel

__all__ = ["backend", "desk", "policy"]

Call = tuple[str, dict[str, Any]]


def answer(text: str, *calls: Call, model: str, tokens: tuple[int, int, int]) -> ModelResponse:
    """One answer of a script, with what a provider would say of it.

    Args:
        text: What the model says.
        calls: The tools it asks for, and their arguments.
        model: The model's name.
        tokens: Read, of these from the cache, and written.
    """
    parts: list[AssistantPart] = [TextPart(text=text)] if text else []
    parts += [ToolCall(id=f"call_{name}", name=name, arguments=arguments) for name, arguments in calls]
    read, cached, written = tokens
    return ModelResponse(
        message=AssistantMessage(parts=parts),
        usage=Usage(input_tokens=read, cached_tokens=cached, output_tokens=written),
        model=model,
        cost=round((read - cached) * 3e-6 + cached * 3e-7 + written * 15e-6, 6),
    )


def _answers_of_desk(request: ModelRequest) -> ModelResponse:
    order = {"order_id": "1042"}
    script = [
        answer(
            "I will look at the order and at what was paid.",
            ("get_order", order),
            ("get_payments", order),
            model="desk-large",
            tokens=(1_284, 0, 96),
        ),
        answer(
            "The parcel is lost. I ask what our policy says about that.",
            ("ask_policy", {"task": "A parcel was lost in transit after 19 days. May we refund 84.90 EUR in full?"}),
            model="desk-large",
            tokens=(1_511, 1_280, 61),
        ),
        answer(
            "The policy allows a full refund.",
            ("refund", {"order_id": "1042", "amount": 84.90, "reason": "lost in transit"}),
            model="desk-large",
            tokens=(1_702, 1_504, 58),
        ),
        answer(
            "I am sorry that your parcel was lost. 84.90 EUR are on their way back to your card; "
            "it takes two to three days until you see them.",
            model="desk-large",
            tokens=(1_846, 1_696, 47),
        ),
    ]
    return script[request.turn]


def _answers_of_policy(request: ModelRequest) -> ModelResponse:
    script = [
        answer("", ("search_policy", {"words": "lost in transit"}), model="policy-small", tokens=(412, 0, 22)),
        answer(
            "Yes. §4.2: a parcel without a scan for 14 days counts as lost and is refunded in full.",
            model="policy-small",
            tokens=(566, 384, 31),
        ),
    ]
    return script[request.turn]


@tool(effect="pure")
def get_order(order_id: str) -> dict[str, str]:
    """Look up one order.

    Args:
        order_id: Its number.
    """
    return {"order": order_id, "item": "Moka pot, 6 cups", "sent": "2026-05-02", "last scan": "Hamburg, 2026-05-03"}


@tool(effect="pure", retries=2)
def get_payments(order_id: str) -> list[str]:
    """List what was paid for one order.

    Args:
        order_id: Its number.
    """
    if current_step().attempt == 1:
        raise ConnectionError("the bank's gateway did not answer in 5 s")
    return [f"order {order_id}: 84.90 EUR, card ending in 4417, captured 2026-05-02"]


@tool(effect="pure")
def search_policy(words: str) -> str:
    """Search the handbook.

    Args:
        words: What to look for.
    """
    return f"§4.2 ({words}): without a scan for 14 days a parcel counts as lost. Refund in full, no return needed."


@tool(requires_approval=True)
def refund(order_id: str, amount: float, reason: str) -> str:
    """Pay money back.

    Args:
        order_id: The order's number.
        amount: Euros.
        reason: Why.
    """
    return f"{amount:.2f} EUR refunded for order {order_id} ({reason}), reference RF-{current_step().key}"


policy = Agent(
    "policy",
    model=ScriptedModel(_answers_of_policy),
    instructions="You know the handbook. Answer with the paragraph.",
    tools=[search_policy],
)

desk = Agent(
    "refund-desk",
    model=ScriptedModel(_answers_of_desk),
    instructions="You answer customers who ask for their money back. Look things up before you promise anything.",
    tools=[get_order, get_payments, delegate(policy), refund],
    retry_policy=RetryPolicy(initial=0.2, jitter=0),
)


def backend() -> SQLiteBackend:
    """The engine of this desk: a file in the current folder."""
    return SQLiteBackend("refund_desk.db", [desk])
