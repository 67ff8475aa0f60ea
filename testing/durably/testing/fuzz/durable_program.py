"""A program made durable: functions that do what its nodes say, and the world their effects go to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from durably.core import Agent, Context, DurablyError, Event, Function, RetryPolicy, StepAPI, Tool, function, tool
from durably.testing.fuzz.programs import (
    LONG,
    RETRIES,
    AgentTools,
    AskAndWait,
    Block,
    FunctionFailure,
    Gather,
    Invoke,
    InvokeTooSlow,
    Node,
    Send,
    Sleep,
    Step,
    Try,
    WaitForOutside,
    WaitInVain,
    nodes,
)
from durably.testing.ledger import EffectLedger
from durably.testing.models.scripted import ScriptedModel, call

__all__ = ["EVENT_NAMES", "DurableProgram"]

EVENT_NAMES = ("program/told", "program/ask", "program/outside")
"""The events that a program sends or gets."""


class DurableProgram:
    """A program made durable, and the world its effects go to.

    Attributes:
        functions: The program's function first, then what it calls.
        effects: How often each body has returned, by the node's place.
        told: The ids of the events that the listener got, and the runs that got them.
        sent: The ids of the events that were sent to it, as their sender was told.
        ledger: What its bodies noted themselves when they started.
        awaited: The keys of the events that are to come from outside.
    """

    def __init__(self, block: Block) -> None:
        self.effects: Counter[str] = Counter()
        self.told: set[tuple[str | None, str]] = set()
        self.sent: set[str] = set()
        self.ledger = EffectLedger()
        self.awaited = {node.key for node in nodes(block) if isinstance(node, WaitForOutside)}
        self._failures: Counter[str] = Counter()
        self._called: dict[str, Function[Any, Any]] = {}

        @function("listener", triggers=["program/told"])
        async def listener(ctx: Context[Any]) -> None:
            self.told.add((ctx.event.id, ctx.run_id))

        @function("sleeper")
        async def sleeper(ctx: Context[None]) -> None:
            await ctx.step.sleep("long", LONG)

        self._sleeper = sleeper
        main = self._function("program", block, "")
        self.functions: list[Function[Any, Any]] = [main, *self._called.values(), listener, sleeper]

    def _function(self, id: str, block: Block, place: str) -> Function[None, Any]:
        self._prepare(block, place)

        @function(id, retries=RETRIES, retry_policy=RetryPolicy(initial=1))
        async def run(ctx: Context[None]) -> Any:
            return await self._block(ctx, block, place)

        return run

    def _prepare(self, block: Block, place: str) -> None:
        """Make the functions that a block calls."""
        for index, node in enumerate(block):
            here = f"{place}.{index}"
            match node:
                case Invoke(block=inner):
                    self._called[here] = self._function(f"child{here}", inner, here)
                case Try(block=inner):
                    self._prepare(inner, here)
                case Gather(branches=branches):
                    for number, branch in enumerate(branches):
                        self._prepare(branch, f"{here}.{number}")
                case AgentTools(turns=turns):
                    self._called[here] = self._agent(turns, here)
                case _:
                    pass

    def _agent(self, turns: tuple[tuple[int, ...], ...], place: str) -> Agent:
        replies = [[call("work", turn=turn, value=value) for value in values] for turn, values in enumerate(turns)]
        return Agent(
            f"agent{place}", model=ScriptedModel(*replies, "done"), instructions="work", tools=[self._tool(place)]
        )

    def _tool(self, place: str) -> Tool:
        @tool
        async def work(turn: int, value: int) -> int:
            """Work."""
            self.ledger.body_started()
            self.effects[f"{place}/{turn}/{value}"] += 1
            return value

        return work

    async def _block(self, ctx: Context[None], block: Block, place: str) -> list[Any]:
        return [await self._node(ctx, node, f"{place}.{index}") for index, node in enumerate(block)]

    async def _node(self, ctx: Context[None], node: Node, place: str) -> Any:
        step = ctx.step
        match node:
            case Step(id=id):
                return await step.run(id, self._body(node, place))
            case Gather(branches=branches):
                return await step.gather(*self._branches(ctx, branches, place))
            case Invoke():
                return await step.invoke("invoke", self._called[place])
            case AgentTools():
                return (await step.invoke("agent", self._called[place], "go")).iterations - 1
            case Try(block=block):
                try:
                    return await self._block(ctx, block, place)
                except (DurablyError, ExceptionGroup):
                    return "caught"
            case FunctionFailure(attempts=attempts):
                if ctx.attempt <= attempts:
                    raise ConnectionError(f"attempt {ctx.attempt} stumbles")
                return None
            case _:
                return await self._primitive(step, node, ctx.run_id)

    def _branches(
        self, ctx: Context[None], branches: tuple[Block, ...], place: str
    ) -> Iterator[Callable[[], Awaitable[Any]]]:
        for number, branch in enumerate(branches):
            yield partial(self._block, ctx, branch, f"{place}.{number}")

    def _body(self, node: Step, place: str) -> Callable[[], Awaitable[int]]:
        async def body() -> int:
            self.ledger.body_started()
            # Failures are counted by place, not by attempt: after a crash the attempt's number may have moved on.
            if node.broken or self._failures[place] < node.fails:
                self._failures[place] += 1
                raise ConnectionError(f"{place} fails")
            self.effects[place] += 1
            return node.value

        return body

    async def _primitive(self, step: StepAPI, node: Node, run_id: str) -> Any:
        match node:
            case Sleep(seconds=seconds):
                await step.sleep("sleep", seconds)
            case Send(count=count, delay=delay):
                # The moment is fixed by the program: one taken from a clock would differ on replay.
                ts = None if delay is None else 1767225600.0 + delay
                ids = await step.send_event("send", *[Event("program/told", n, ts=ts) for n in range(count)])
                self.sent.update(ids)
                return len(ids)
            case AskAndWait(question=number):
                event, _ = await step.gather(
                    lambda: step.wait_for_event("answer", "program/ask", match={"run": run_id, "number": number}),
                    lambda: step.send_event("ask", Event("program/ask", {"run": run_id, "number": number})),
                )
                return None if event is None else event.data["number"]
            case WaitInVain(timeout=timeout):
                event = await step.wait_for_event("wait", "program/never", timeout=timeout)
                return None if event is None else event.data
            case WaitForOutside(key=key):
                event = await step.wait_for_event("await", "program/outside", match={"key": key})
                return None if event is None else event.data["key"]
            case InvokeTooSlow(timeout=timeout):
                await step.invoke("late", self._sleeper, timeout=timeout)
        return None
