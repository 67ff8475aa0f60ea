"""The world that each agent acts on, in files, and the script of its model. Standard library only.

The bank and the mail service know idempotency keys, as real ones do: a second request under a known key does nothing.
Each agent gives them the most stable name of the call that its library hands to a tool.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from durably.testing.foreign import inside

__all__ = ["ANSWER", "INSTRUCTIONS", "QUESTION", "Service", "bank", "look_up", "mailed", "next_calls", "post", "state"]

QUESTION = "My vase, order 7, came broken."
INSTRUCTIONS = "You help customers: look up the order, pay the money back, and write to them."
ANSWER = "Your money is on its way."


@dataclass(frozen=True)
class Service:
    """Something that keeps what it is asked for in a file, once for each key."""

    path: Path

    def request(self, order_id: str, key: str) -> None:
        """Do it, unless it was done under this key."""
        with self.path.open("a+", encoding="utf-8") as file:
            inside()  # the request is on its way
            if any(line["key"] == key for line in self.lines()):
                return
            file.write(json.dumps({"order": order_id, "key": key}) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """What was done."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def bank(folder: Path) -> Service:
    """Where the money is."""
    return Service(folder / "bank.jsonl")


def post(folder: Path) -> Service:
    """Who brings the mail."""
    return Service(folder / "post.jsonl")


def look_up(order_id: str) -> str:
    """What was ordered."""
    inside()
    return f"Order {order_id} was a vase."


def state(folder: Path) -> list[str]:
    """The orders whose money was paid back."""
    return [line["order"] for line in bank(folder).lines()]


def mailed(folder: Path) -> list[str]:
    """The orders that a mail was received about."""
    return [line["order"] for line in post(folder).lines()]


def next_calls(turn: int) -> Sequence[tuple[str, str]]:
    """What the model asks for in a turn, from 0: the names of tools and the ids of the calls, made up as models do."""
    names: list[tuple[str, ...]] = [("get_order",), ("refund", "send_mail"), ()]
    return [(name, f"call_{uuid4().hex[:12]}") for name in names[turn]]
