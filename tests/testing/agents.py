"""Agents and functions that the harness is tried on; at the top of a module, so that another process finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from durably.core import Agent, Context, Event, create_agent_loop, current_step, function, tool
from durably.testing import ScriptedModel, call


class Bank:
    """A world: what was paid, and the keys it has seen."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.seen: set[str] = set()

    def pay(self, order_id: str, key: str | None) -> None:
        if key is None or key not in self.seen:
            self.paid.append(order_id)
        if key is not None:
            self.seen.add(key)


def agent_of(bank: Bank, *, keyed: bool = True, ignored: bool = False) -> Agent:
    @tool
    async def charge(order_id: str) -> str:
        key = current_step().idempotency_key if keyed or ignored else None
        bank.pay(order_id, None if ignored else key)
        return "charged"

    @tool(effect="pure")
    def get_order(order_id: str) -> str:
        return f"order {order_id} is late"

    model = ScriptedModel(
        call("get_order", order_id="7"),
        [call("charge", order_id="7"), call("get_order", order_id="8")],
        "done",
    )
    return Agent("support", model=model, instructions="Help.", tools=[charge, get_order])


def keyed() -> tuple[Agent, Bank]:
    bank = Bank()
    return agent_of(bank), bank


def unkeyed() -> tuple[Agent, Bank]:
    bank = Bank()
    return agent_of(bank, keyed=False), bank


def ignoring() -> tuple[Agent, Bank]:
    bank = Bank()
    return agent_of(bank, ignored=True), bank


def paid(bank: Bank) -> list[str]:
    return bank.paid


@function("look-up")
async def look_up(ctx: Context[str]) -> str:
    return await ctx.step.run("upper", str.upper, ctx.input)


flaky_calls = {"count": 0}


def flaky(name: str) -> str:
    if current_step().attempt == 1:
        raise ConnectionError("try again")
    current_step().heartbeat()
    return name


@function("every-kind", retries=2)
async def every_kind(ctx: Context[str]) -> str:
    name = await ctx.step.invoke("ask", look_up, ctx.input)
    await ctx.step.run("flaky", flaky, name)
    await ctx.step.sleep("rest", 3600)
    await ctx.step.send_event("tell", Event("told", {"name": name}))
    answer = await ctx.step.wait_for_event("answer", "answered", match={"name": name}, timeout=60)
    once = await ctx.step.run("once", str.lower, name, at_most_once=True, retries=0)
    return f"{name} {once} {answer.data['text'] if answer else 'silence'}"


ANSWER = Event("answered", {"name": "ANN", "text": "yes"})


@function("watch", triggers=["told"])
async def watch(ctx: Context[Any]) -> None:
    await ctx.step.run("note", str, ctx.input["name"])


@function("tell-all")
async def tell_all(ctx: Context[list[str]]) -> int:
    for name in {*ctx.input}:
        await ctx.step.run(f"tell-{name}", str.upper, name)
    return len(ctx.input)


@function("loops")
async def loops(ctx: Context[str]) -> str:
    """A function around the loop of an agent that stands beside it."""
    result = await create_agent_loop(helper, ctx.input)(ctx.step, ctx.logger)
    return result.text


helper = agent_of(Bank())


def on_disk(folder: Path) -> tuple[Agent, Path]:
    """An agent whose world is a file."""
    journal = folder / "paid.txt"

    @tool
    def charge(order_id: str) -> str:
        with journal.open("a") as file:
            file.write(f"{order_id} {current_step().idempotency_key}\n")
        return "charged"

    model = ScriptedModel(call("charge", order_id="7"), "done")
    return Agent("support", model=model, instructions="Help.", tools=[charge]), journal


def lines(journal: Path) -> int:
    return len(journal.read_text().splitlines())


def different_lines(journal: Path) -> int:
    return len(set(journal.read_text().splitlines()))
