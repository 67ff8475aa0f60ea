"""Agents on a real SDK, at the top of a module, so that another process finds them."""

from __future__ import annotations

import os
from pathlib import Path

from durably.core import Agent, current_step, tool
from durably.providers import Key
from durably.providers.anthropic import AnthropicModel

ENV = "DURABLY_TEST_KEY"
URL = "DURABLY_TEST_URL"


def shop(path: Path) -> tuple[Agent, Path]:
    """An agent that streams, and the file its tool writes to. The server knows the cell by a header."""
    orders = path / "orders"

    @tool
    async def find(order: str) -> str:
        """Find an order."""
        with orders.open("a") as file:
            file.write(f"{current_step().idempotency_key} {order}\n")
        return f"order {order} is on its way"

    agent = Agent(
        "shop",
        model=AnthropicModel("claude-opus-4-6", key=Key(env=ENV), base_url=os.environ[URL]),
        instructions="Be brief.",
        tools=[find],
        model_options={"extra_headers": {"x-cell": str(path)}},
        sink=lambda delta: None,
    )
    return agent, orders


def found(orders: Path) -> list[str]:
    """What was looked up, each call once."""
    return sorted(set(orders.read_text().splitlines()))
