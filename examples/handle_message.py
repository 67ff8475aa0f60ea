"""A message comes in; an agent answers it, with a session, tools, sub-agents and a reply event.

`build` makes the functions of the program. It knows no engine: give them to any backend. Run this file to see it work
on SQLite, with a script in the model's place:

    $ python examples/handle_message.py
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from durably.backends import SQLiteBackend
from durably.core import (
    Agent,
    AgentResult,
    Context,
    Event,
    Function,
    Model,
    SessionStore,
    Singleton,
    SQLiteSessions,
    assistant,
    create_agent_loop,
    current_step,
    delegate,
    delegate_async,
    delegate_scheduled,
    function,
    tool,
    user,
)
from durably.core.messages import AssistantMessage, ToolResultMessage
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call


class Incoming(BaseModel):
    """What a channel hands over: the data of the event ``agent/message.received``."""

    text: str
    session_key: str


class Reply(BaseModel):
    """What goes back: the data of the event ``agent/reply.ready``."""

    text: str
    session_key: str


@tool
async def get_order(order_id: str) -> str:
    """Look up one order."""
    return f"Order {order_id} was packed today and ships tomorrow."


@tool
async def search_manual(question: str) -> str:
    """Search the manual."""
    return f"The manual on {question!r}: hold the button for ten seconds."


@tool
async def note(text: str) -> str:
    """Write a line into the customer's file."""
    return await deliver("file", text)


async def deliver(where: str, text: str) -> str:
    """Hand a text to the outside world, once: the channel drops a key it has seen."""
    step = current_step()
    step.resources["channel"](where, text, step.idempotency_key)
    return "done"


async def send_reply(reply: Reply) -> str:
    """The body of ``send``."""
    return await deliver(reply.session_key, reply.text)


def build(
    model: Model | str,
    sessions: SessionStore,
    *,
    helper: Model | str | None = None,
    now: Callable[[], float] = time.time,
) -> list[Function[Any, Any]]:
    """The functions of the program. They need a resource ``channel``: a callable of (where, text, idempotency key).

    Args:
        model: What answers customers.
        sessions: Where conversations are kept.
        helper: What the sub-agents run on; left out, the same.
        now: The clock that a reminder is counted from.
    """
    helper = helper or model
    expert = Agent("expert", model=helper, instructions="Answer from the manual.", tools=[search_manual])
    clerk = Agent("clerk", model=helper, instructions="Keep the customer's file.", tools=[note])
    caller = Agent("caller", model=helper, instructions="Write to the customer again, as told.", tools=[note])
    support = Agent(
        "support",
        model=model,
        instructions="You help customers.",
        tools=[
            get_order,
            delegate(expert, description="Ask an expert and wait for the answer."),
            delegate_async(clerk, description="Have something filed, without waiting."),
            delegate_scheduled(caller, description="Have the customer called back later.", now=now),
        ],
        sessions=sessions,
    )

    @function(
        "handle-message",
        triggers=["agent/message.received"],
        retries=2,
        singleton=Singleton(key="session_key", mode="cancel"),
    )
    async def handle_message(ctx: Context[Incoming]) -> AgentResult:
        text, session_key = ctx.input.text, ctx.input.session_key
        await ctx.step.run("save-incoming", support.save, session_key, [user(text)])
        run_loop = create_agent_loop(support, text, session_key=session_key)
        result = await run_loop(ctx.step, ctx.logger)
        await ctx.step.run("save-response", support.save, session_key, [assistant(result.text)])
        reply = Reply(text=result.text, session_key=session_key)
        await ctx.step.send_event("reply", Event("agent/reply.ready", reply.model_dump()))
        return result

    @function("reply", triggers=["agent/reply.ready"])
    async def reply(ctx: Context[Reply]) -> None:
        await ctx.step.run("send", send_reply, ctx.input)

    return [handle_message, reply, support]


def script(request: ModelRequest) -> Any:
    """What a model might say, to whoever it speaks for: it calls the agent's tools, then answers."""
    last = request.messages[-1]
    if isinstance(last, AssistantMessage):
        raise TypeError("a model is asked after a user or a tool has spoken")
    answered = last.name if isinstance(last, ToolResultMessage) else None
    match request.system:
        case "You help customers.":
            if answered is None:
                return call("get_order", order_id="7")
            if answered == "get_order":
                return [
                    call("ask_expert", task="How is it reset?"),
                    call("start_clerk", task="Asked about order 7."),
                    call("schedule_caller", task="Did it arrive?", when="2 seconds"),
                ]
            return "It ships tomorrow. To reset it, hold the button for ten seconds."
        case "Answer from the manual.":
            return "Hold the button for ten seconds." if answered else call("search_manual", question="reset")
        case _:
            return "Done." if answered else call("note", text=last.content)


async def main(directory: Path) -> None:
    """Send one message and wait until its reminder has been written."""
    written: dict[str, str] = {}
    reminded = asyncio.Event()

    def channel(where: str, text: str, key: str) -> None:
        if key not in written:
            written[key] = text
            print(f"[{where}] {text}")
        if len(written) == 3:
            loop.call_soon_threadsafe(reminded.set)

    loop = asyncio.get_running_loop()
    functions = build(ScriptedModel(script), SQLiteSessions(directory / "sessions.db"))
    async with SQLiteBackend(directory / "runs.db", functions, resources={"channel": channel}) as backend:
        message = Incoming(text="Where is order 7, and how do I reset it?", session_key="ann")
        await backend.send(Event("agent/message.received", message.model_dump(), id="message-1"))
        await reminded.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
