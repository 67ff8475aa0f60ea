"""Agents written by hand, right and wrong ones, that are crash-tested from outside. Standard library only.

``python -m tests.testing.foreign_agents start FOLDER`` runs one of them as a command.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from durably.testing.foreign import model_asked, watched
from tests.benchmarks.foreign.world import bank, post


@watched(by=["order_id"])
def refund(folder: Path, order_id: str, call_id: str) -> str:
    bank(folder).request(order_id, call_id)
    return "refunded"


@watched(by=["order_id"])
async def send_mail(folder: Path, order_id: str, call_id: str) -> str:
    post(folder).request(order_id, call_id)
    return "sent"


class Conversation:
    """Calls and results, in a file that is written with each of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "conversation.jsonl"
        self.turns: list[Any] = []
        if self.path.exists():
            self.turns = [tuple(json.loads(line)) for line in self.path.read_text().splitlines()]

    def add(self, kind: str, call_id: str) -> None:
        self.turns.append((kind, call_id))
        with self.path.open("a") as file:
            file.write(json.dumps([kind, call_id]) + "\n")

    def complete(self) -> None:
        """Run the calls that have no result."""
        results = {each for kind, each in self.turns if kind == "result"}
        for kind, call_id in list(self.turns):
            if kind == "call" and call_id not in results:
                self.run(call_id)

    def run(self, call_id: str) -> None:
        if call_id == "call-1":
            refund(self.folder, "7", call_id)
        else:
            asyncio.run(send_mail(self.folder, "7", call_id))
        self.add("result", call_id)

    def go_on(self) -> str:
        while True:
            model_asked(self.turns)
            known = [each for kind, each in self.turns if kind == "call"]
            if len(known) == 2:
                return "done"
            self.add("call", f"call-{len(known) + 1}")
            self.complete()


def start(folder: Path) -> str:
    return Conversation(folder).go_on()


def resume(folder: Path) -> str:
    conversation = Conversation(folder)
    conversation.complete()
    return conversation.go_on()


def begin_again(folder: Path) -> str:
    """Keeps nothing: what was shown to the model is done again."""
    (folder / "conversation.jsonl").unlink(missing_ok=True)
    return start(folder)


def ask_at_once(folder: Path) -> str:
    """Leaves a call without a result behind, and goes on from there."""
    return Conversation(folder).go_on()


async def give_up(folder: Path) -> str:
    """Cannot go on from what it kept."""
    raise ValueError("the file is half written")


def hang(folder: Path) -> str:
    """Never ends."""
    time.sleep(60)
    return "late"


def forget_the_answer(folder: Path) -> str:
    """Comes to another end."""
    resume(folder)
    return "I do not know you"


def send_again(folder: Path) -> str:
    """Writes to the customer once more, to be sure."""
    asyncio.run(send_mail(folder, "7", "again"))
    return resume(folder)


def by_the_clock(folder: Path) -> str:
    return f"{start(folder)} at {time.time_ns()}"


def without_tools(folder: Path) -> str:
    return "done"


if __name__ == "__main__":
    print({"start": start, "resume": resume, "give_up": give_up}[sys.argv[1]](Path(sys.argv[2])))
