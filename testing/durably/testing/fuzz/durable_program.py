"""A program made durable: functions that do what its nodes say, and the world their effects go to."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Set
from functools import partial
from typing import Any

from durably.core import (
    APPROVAL_GIVEN,
    Context,
    DurablyError,
    Event,
    Function,
    RetryPolicy,
    StepAPI,
    current_step,
    function,
)
from durably.testing.fuzz.oracle import MAIN
from durably.testing.fuzz.program_agents import MOMENT, ProgramAgents
from durably.testing.fuzz.program_rivals import TICK, clockwork, rival, rival_event
from durably.testing.fuzz.programs import (
    LONG,
    RETRIES,
    AgentTools,
    AskAndWait,
    AwaitTick,
    Block,
    Contend,
    FunctionFailure,
    Gather,
    Heals,
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
from durably.testing.fuzz.world import World
from durably.testing.ledger import EffectLedger

__all__ = ["DurableProgram"]


class DurableProgram:
    """A program made durable, and the world its effects go to.

    Args:
        block: The program.
        world: Where its effects go; left out, a new one.
        pace: Seconds that one second of the program takes, for engines in real time.
        token: Part of the ids of what crons start: on some engines a moment of a function has one run for all.
        months: Whether months pass while a cron is waited for; if not, somebody lets it come round.

    Attributes:
        functions: The program's function first, then what it calls, and what its events start.
        world: What happened.
        ledger: What its bodies noted themselves when they started.
        awaited: The keys of the events that are to come from outside.
    """

    def __init__(
        self, block: Block, world: World | None = None, *, pace: float = 1.0, token: str = "", months: bool = True
    ) -> None:
        self.world = World() if world is None else world
        self.ledger = EffectLedger()
        self.awaited = {node.key for node in nodes(block) if isinstance(node, WaitForOutside)}
        self._pace = pace
        self._months = LONG * pace if months else 0.0
        self._called: dict[str, Function[Any, Any]] = {}
        agents = self._agents = ProgramAgents(self.world, self.ledger)

        @function("listener", triggers=["program/told"])
        async def listener(ctx: Context[Any]) -> None:
            self.world.note("told", ctx.event.id or "", ctx.run_id)

        @function("sleeper")
        async def sleeper(ctx: Context[None]) -> None:
            await ctx.step.sleep("long", LONG * pace)

        self._sleeper = sleeper
        main = self._function(MAIN, block, "")
        rules = {
            f"rival {n.mode}": partial(rival, n.mode, self.world, pace) for n in nodes(block) if isinstance(n, Contend)
        }
        rules |= {
            f"cron {n.missed}": partial(clockwork, n.missed, self.world, token)
            for n in nodes(block)
            if isinstance(n, AwaitTick)
        }
        ruled = [make() for make in rules.values()]
        others = [listener, sleeper, *ruled, *([agents.desk] if agents.desk is not None else [])]
        self.functions: list[Function[Any, Any]] = [main, *self._called.values(), *others]

    @property
    def event_names(self) -> list[str]:
        """The names of the events that were sent: to its functions, and to its waiting steps."""
        names = {trigger for each in self.functions for trigger in each.triggers}
        helpers = {trigger for each in self._called.values() for used in each.uses for trigger in used.triggers}
        return sorted(names | helpers | {"program/ask", "program/outside", TICK, APPROVAL_GIVEN})

    @property
    def effects(self) -> Mapping[str, int]:
        """How often each body has returned, by the node's place."""
        return self.world.count("effect")

    @property
    def told(self) -> Set[tuple[str, str]]:
        """The ids of the events that the listener got, and the runs that got them."""
        return {(note.name, note.run_id) for note in self.world.of("told")}

    @property
    def sent(self) -> Set[str]:
        """The ids of the events that were sent to the listener, as their sender was told."""
        return set(self.world.count("sent"))

    def heal(self) -> None:
        """Mend the world: steps that waited for that do not fail any more."""
        if not self.world.healed:
            self.world.note("healed", "")

    def _function(self, id: str, block: Block, place: str) -> Function[None, Any]:
        self._prepare(block, place)

        @function(id, retries=RETRIES, retry_policy=RetryPolicy(initial=self._pace))
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
                case AgentTools():
                    self._called[here] = self._agents.agent(node, here)
                case _:
                    pass

    async def _block(self, ctx: Context[None], block: Block, place: str) -> list[Any]:
        return [await self._node(ctx, node, f"{place}.{index}") for index, node in enumerate(block)]

    async def _node(self, ctx: Context[None], node: Node, place: str) -> Any:
        step = ctx.step
        match node:
            case Step(id=id):
                return await step.run(id, self._body(node, place))
            case Heals():
                return await step.run("mend", self._body(node, place))
            case Gather(branches=branches):
                return await step.gather(*self._branches(ctx, branches, place))
            case Invoke():
                return await step.invoke("invoke", self._called[place])
            case AgentTools():
                return json.loads((await step.invoke("agent", self._called[place], "go")).text)
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

    def _body(self, node: Step | Heals, place: str) -> Callable[[], Awaitable[int]]:
        async def body() -> int:
            self.ledger.body_started()
            if self._fails(node, place):
                self.world.note("failure", place, current_step().run_id)
                raise ConnectionError(f"{place} fails")
            self.world.note("effect", place, current_step().run_id)
            return node.value

        return body

    def _fails(self, node: Step | Heals, place: str) -> bool:
        if isinstance(node, Heals):
            return not self.world.healed
        # Failures are counted by place, not by attempt: after a crash the attempt's number may have moved on.
        return node.broken or self.world.count("failure")[place] < node.fails

    async def _primitive(self, step: StepAPI, node: Node, run_id: str) -> Any:
        match node:
            case Sleep(seconds=seconds):
                await step.sleep("sleep", seconds * self._pace)
            case Send(count=count, delay=delay):
                ts = None if delay is None else MOMENT + delay
                ids = await step.send_event("send", *[Event("program/told", n, ts=ts) for n in range(count)])
                for event_id in set(ids) - self.sent:
                    self.world.note("sent", event_id, run_id)
                return len(ids)
            case Contend(mode=mode, keys=keys):
                return len(await step.send_event("contend", *[Event(rival_event(mode), {"key": key}) for key in keys]))
            case AwaitTick(missed=missed):
                await step.gather(
                    lambda: step.wait_for_event("tick", TICK, match={"missed": missed}),
                    lambda: step.sleep("months", self._months),
                )
                return "ticked"
            case AskAndWait(question=number):
                event, _ = await step.gather(
                    lambda: step.wait_for_event("answer", "program/ask", match={"run": run_id, "number": number}),
                    lambda: step.send_event("ask", Event("program/ask", {"run": run_id, "number": number})),
                )
                return None if event is None else event.data["number"]
            case WaitInVain(timeout=timeout):
                event = await step.wait_for_event("wait", "program/never", timeout=timeout * self._pace)
                return None if event is None else event.data
            case WaitForOutside(key=key):
                event = await step.wait_for_event("await", "program/outside", match={"key": key})
                return None if event is None else event.data["key"]
            case InvokeTooSlow(timeout=timeout):
                await step.invoke("late", self._sleeper, timeout=timeout * self._pace)
        return None
