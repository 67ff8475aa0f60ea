"""A refund that a person must approve: at most one payment for a call, and none without a yes.

The agent decides, a person approves, and a durable function pays. Its model answers from a script, so it runs without a
key::

    $ python examples/refund.py
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from durably.backends import SQLiteBackend
from durably.core import Agent, Backend, Context, Model, PendingApproval, current_step, function, tool
from durably.core.messages import ToolResultMessage, UserMessage
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call

__all__ = ["Bank", "Refund", "build", "pending", "script"]


@dataclass
class Refund:
    """What the model writes, and a person may change.

    Attributes:
        order_id: The order.
        amount: Euros.
    """

    order_id: str
    amount: float


@dataclass
class Bank:
    """Stands for the bank. It pays once for each idempotency key, as payment providers do.

    Attributes:
        paid: What was paid, by idempotency key.
        outages: How many calls fail before it answers again.
        calls: How often it was asked to pay.
    """

    paid: dict[str, Refund] = field(default_factory=dict)
    outages: int = 0
    calls: int = 0

    async def pay(self, refund: Refund) -> str:
        """Pay: the body of a step, which may run again after a crash."""
        self.calls += 1
        if self.calls <= self.outages:
            raise ConnectionError("the bank does not answer")
        self.paid.setdefault(current_step().idempotency_key, refund)
        return f"{refund.amount:.2f} EUR for order {refund.order_id} are on their way"


def build(bank: Bank, model: Model, *, patience: str = "2 days") -> Agent:
    """The agent. It may ask for a refund; who pays it is a run of its own.

    Args:
        bank: Pays.
        model: What answers customers.
        patience: How long a person may take to approve a refund, such as ``"2 days"``.
    """

    @function("refund", retries=5)
    async def refund(ctx: Context[Refund]) -> str:
        """Pay money back for an order."""
        return await ctx.step.run("pay", bank.pay, ctx.input)

    @tool(effect="pure")
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        return f"order {order_id}: a cup for 20.00 EUR, lost on the way"

    asked = tool(refund, requires_approval=lambda amount: amount > 5, approval_timeout=patience)
    return Agent(
        "refunds",
        model=model,
        instructions="You help customers who want their money back. Look an order up before you refund it.",
        tools=[get_order, asked],
    )


def script() -> ScriptedModel:
    """What a model might say: it looks, asks for the refund, and tells the customer what came of it."""

    def answer(request: ModelRequest) -> Any:
        last = request.messages[-1]
        if isinstance(last, UserMessage):
            return call("get_order", order_id="7")
        if isinstance(last, ToolResultMessage) and last.name == "get_order":
            return call("refund", order_id="7", amount=20.0)
        return f"Your refund: {last.content}" if isinstance(last, ToolResultMessage) else "Anything else?"

    return ScriptedModel(answer)


async def pending(backend: Backend, run_id: str) -> PendingApproval:
    """Wait until a run asks for an approval."""
    while True:
        for found in await backend.approvals(run=run_id):
            return found
        await asyncio.sleep(0.01)


async def main(directory: Path) -> None:
    """Ask for a refund, and approve it."""
    bank = Bank()
    agent = build(bank, script())
    async with SQLiteBackend(directory / "runs.db", [agent]) as backend:
        run = await backend.start(agent, "My cup was lost. I want my money back.")
        asked = await pending(backend, run.id)
        print(f"{asked.tool} {asked.arguments}?")
        await backend.approve(asked, by="Zoe", arguments={"order_id": "7", "amount": 15.0})
        print((await run.result()).text)
    print(f"paid: {[refund.amount for refund in bank.paid.values()]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
