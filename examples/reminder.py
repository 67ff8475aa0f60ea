"""Reminders: an agent that is asked for one starts another agent at the time that was asked for.

The reminder is an event with a time in the future. It is kept with the runs: it comes also if every process was
restarted meanwhile, and it comes once. Its models answer from a script, so it runs without a key::

    $ python -m examples.reminder
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import Agent, AgentInput, current_step, delegate_scheduled, tool
from durably.testing import ScriptedModel, call

__all__ = ["make_assistant", "outbox"]


@tool(effect="idempotent")
async def send_message(text: str) -> str:
    """Send the customer a message."""
    # The key is the same if this runs again after a crash: each message is sent once.
    sent: dict[str, str] = current_step().resources["outbox"]
    sent.setdefault(current_step().idempotency_key, text)
    return "sent"


def make_assistant(when: str, now: Callable[[], float] = time.time) -> Agent:
    """Return the agent that takes reminders. The one that reminds comes along.

    Args:
        when: The time that its scripted model asks for: ISO 8601 with a zone, or a delay such as ``"2 days"``.
        now: Tells the time that a delay is counted from, in seconds since 1970.
    """
    reminder = Agent(
        "reminder",
        model=ScriptedModel(call("send_message", text="Your parcel is ready at the shop."), "Reminded."),
        instructions="You remind a customer of what they asked you to.",
        tools=[send_message],
    )
    ask = call("schedule_reminder", task="Remind Ann that her parcel is ready at the shop.", when=when)
    return Agent(
        "assistant",
        model=ScriptedModel(ask, "I will remind you."),
        instructions="You are the assistant of a shop. Reminders are set with schedule_reminder.",
        tools=[delegate_scheduled(reminder, now=now)],
    )


def outbox() -> dict[str, str]:
    """Return what was sent: an empty table with a unique key, in the place of a mail service."""
    return {}


async def main() -> None:
    """Set a reminder for in three seconds, stop, and start again."""
    path, sent = Path("reminders.db"), outbox()
    assistant = make_assistant((datetime.now(UTC) + timedelta(seconds=3)).isoformat())
    async with SQLiteBackend(path, [assistant], resources={"outbox": sent}) as backend:
        result = await backend.invoke(assistant, AgentInput(message="Remind me of my parcel."))
        print(result.text)
    print("(the program has stopped, and starts again)")
    async with SQLiteBackend(path, [assistant], resources={"outbox": sent}):
        while not sent:  # noqa: ASYNC110 - a program would go on with something else
            await asyncio.sleep(0.1)
    print(*sent.values(), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
