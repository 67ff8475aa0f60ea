"""A plain loop: the conversation is written to a JSON file after each turn. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from durably.testing.foreign import model_asked, watched
from tests.benchmarks.foreign.world import ANSWER, QUESTION, bank, look_up, next_calls, post

__all__ = ["ENGINE", "resume", "start"]

ENGINE = "a loop by hand, a JSON file after each turn"


@watched(by=["order_id"])
def get_order(folder: Path, order_id: str, call_id: str) -> str:
    return look_up(order_id)


@watched(by=["order_id"])
def refund(folder: Path, order_id: str, call_id: str) -> str:
    bank(folder).request(order_id, call_id)
    return "refunded"


@watched(by=["order_id"])
def send_mail(folder: Path, order_id: str, call_id: str) -> str:
    post(folder).request(order_id, call_id)
    return "sent"


TOOLS = {tool.__name__: tool for tool in (get_order, refund, send_mail)}


def ask_model(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The model of the test."""
    turns = [(kind, call["id"]) for message in messages for kind, call in _calls(message)]
    model_asked(turns)
    turn = sum(message["role"] == "assistant" for message in messages)
    calls = [{"id": call_id, "name": name, "order_id": "7"} for name, call_id in next_calls(turn)]
    return {"role": "assistant", "text": "" if calls else ANSWER, "calls": calls}


def _calls(message: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    if message["role"] == "tool":
        return [("result", message)]
    return [("call", call) for call in message.get("calls", ())]


def start(folder: Path) -> str:
    """Begin a conversation."""
    return go_on(folder, [{"role": "user", "text": QUESTION}])


def resume(folder: Path) -> str:
    """Go on with the one on file."""
    path = folder / "conversation.json"
    return go_on(folder, json.loads(path.read_text(encoding="utf-8"))) if path.exists() else start(folder)


def go_on(folder: Path, messages: list[dict[str, Any]]) -> str:
    """The loop."""
    while True:
        last = messages[-1]
        if last["role"] == "assistant" and not last["calls"]:
            return str(last["text"])
        answer = ask_model(messages)
        messages.append(answer)
        for call in answer["calls"]:
            said = TOOLS[call["name"]](folder, call["order_id"], call["id"])
            messages.append({"role": "tool", "id": call["id"], "text": said})
        (folder / "conversation.json.new").write_text(json.dumps(messages), encoding="utf-8")
        (folder / "conversation.json.new").rename(folder / "conversation.json")
