"""Durable programs as data: what one is, how it runs, and what must come out of it.

A program is a tree of nodes. :class:`Script` makes durable functions of it; :func:`expect` says what they must return
and do, from the tree alone, without running anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from durably.core import (
    Agent,
    Context,
    DurablyError,
    Event,
    Function,
    RetryPolicy,
    StepAPI,
    Tool,
    current_step,
    function,
    tool,
)
from durably.testing.models.scripted import ScriptedModel, call

__all__ = [
    "Ask",
    "Await",
    "Block",
    "Expected",
    "Gather",
    "Invoke",
    "Late",
    "Node",
    "Run",
    "Script",
    "Send",
    "Sleep",
    "Stumble",
    "Tools",
    "Try",
    "Wait",
    "expect",
]


@dataclass(frozen=True)
class Run:
    """A step: fails so many times and then returns its value, or fails always."""

    id: str
    value: int
    fails: int = 0
    broken: bool = False


@dataclass(frozen=True)
class Sleep:
    """A sleep, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Send:
    """Events to a listener, so many, now or later."""

    count: int
    delay: float | None = None


@dataclass(frozen=True)
class Ask:
    """A wait for an event that a branch beside it sends."""

    question: int


@dataclass(frozen=True)
class Wait:
    """A wait for an event that never comes."""

    timeout: float


@dataclass(frozen=True)
class Await:
    """A wait for an event from outside."""

    key: int


@dataclass(frozen=True)
class Late:
    """A call of a function that takes longer than its timeout."""

    timeout: float


@dataclass(frozen=True)
class Tools:
    """An agent that calls tools, a turn for each group of values."""

    turns: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Gather:
    """Branches."""

    branches: tuple[Block, ...]


@dataclass(frozen=True)
class Invoke:
    """A call of a function that runs the block."""

    block: Block


@dataclass(frozen=True)
class Try:
    """A block whose failure is caught."""

    block: Block


@dataclass(frozen=True)
class Stumble:
    """An error outside any step, in the first attempts of the function."""

    attempts: int


Node = Run | Sleep | Send | Ask | Wait | Await | Late | Tools | Gather | Invoke | Try | Stumble
Block = tuple[Node, ...]

RETRIES = 2
LONG = 10_000_000.0
"""Seconds; longer than any clock is set back in a trial, so that a call that must be late is."""


class FailureError(Exception):
    """In the oracle: the block fails here."""


@dataclass
class Expected:
    """What a program must come to.

    Attributes:
        result: What it returns, or ``None`` if it fails.
        fails: Whether the run fails.
        effects: How often each body must have its effect, by the node's place.
        told: How many events the listener gets.
        children: How many child runs there are.
    """

    result: list[Any] | None = None
    fails: bool = False
    effects: Counter[str] = field(default_factory=Counter)
    told: int = 0
    children: int = 0


def expect(block: Block) -> Expected:
    """The oracle."""
    expected = Expected()
    try:
        expected.result = _expect(block, "", expected)
    except FailureError:
        expected.fails = True
    return expected


def _expect(block: Block, place: str, expected: Expected) -> list[Any]:
    return [_expect_node(node, f"{place}.{index}", expected) for index, node in enumerate(block)]


def _expect_node(node: Node, place: str, expected: Expected) -> Any:
    match node:
        case Run(broken=True) | Late():
            expected.children += isinstance(node, Late)
            raise FailureError
        case Run(value=value):
            expected.effects[place] += 1
            return value
        case Send(count=count):
            expected.told += count
            return count
        case Ask(question=number) | Await(key=number):
            return number
        case Tools(turns=turns):
            expected.children += 1
            for turn, values in enumerate(turns):
                expected.effects.update(f"{place}/{turn}/{value}" for value in values)
            return len(turns)
        case Gather(branches=branches):
            return _expect_gather(branches, place, expected)
        case Invoke(block=block):
            expected.children += 1
            return _expect(block, place, expected)
        case Try(block=block):
            try:
                return _expect(block, place, expected)
            except FailureError:
                return "caught"
    return None


def _expect_gather(branches: tuple[Block, ...], place: str, expected: Expected) -> list[Any]:
    results: list[Any] = []
    failed = False
    for index, branch in enumerate(branches):
        try:
            results.append(_expect(branch, f"{place}.{index}", expected))
        except FailureError:
            failed = True
    if failed:
        raise FailureError
    return results


class Script:
    """A program made durable, and the world its effects go to.

    Attributes:
        functions: The program's function first, then what it calls.
        effects: How often each body has returned, by the node's place.
        told: The ids of the events that the listener got, and the runs that got them.
        sent: The ids of the events that were sent to it, as their sender was told.
        keys: The idempotency keys that each body saw, by run and step key.
        awaited: The keys of the events that are to come from outside.
    """

    def __init__(self, block: Block) -> None:
        self.effects: Counter[str] = Counter()
        self.told: set[tuple[str | None, str]] = set()
        self.sent: set[str] = set()
        self.keys: dict[tuple[str, str], set[str]] = {}
        self.awaited = {node.key for node in nodes(block) if isinstance(node, Await)}
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
                case Tools(turns=turns):
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
            self.effects[f"{place}/{turn}/{value}"] += 1
            return value

        return work

    async def _block(self, ctx: Context[None], block: Block, place: str) -> list[Any]:
        return [await self._node(ctx, node, f"{place}.{index}") for index, node in enumerate(block)]

    async def _node(self, ctx: Context[None], node: Node, place: str) -> Any:
        step = ctx.step
        match node:
            case Run(id=id):
                return await step.run(id, self._body(node, place))
            case Gather(branches=branches):
                return await step.gather(*self._branches(ctx, branches, place))
            case Invoke():
                return await step.invoke("invoke", self._called[place])
            case Tools():
                return (await step.invoke("agent", self._called[place], "go")).iterations - 1
            case Try(block=block):
                try:
                    return await self._block(ctx, block, place)
                except (DurablyError, ExceptionGroup):
                    return "caught"
            case Stumble(attempts=attempts):
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

    def _body(self, node: Run, place: str) -> Callable[[], Awaitable[int]]:
        async def body() -> int:
            info = current_step()
            self.keys.setdefault((info.run_id, info.key), set()).add(info.idempotency_key)
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
            case Ask(question=number):
                event, _ = await step.gather(
                    lambda: step.wait_for_event("answer", "program/ask", match={"run": run_id, "number": number}),
                    lambda: step.send_event("ask", Event("program/ask", {"run": run_id, "number": number})),
                )
                return None if event is None else event.data["number"]
            case Wait(timeout=timeout):
                event = await step.wait_for_event("wait", "program/never", timeout=timeout)
                return None if event is None else event.data
            case Await(key=key):
                event = await step.wait_for_event("await", "program/outside", match={"key": key})
                return None if event is None else event.data["key"]
            case Late(timeout=timeout):
                await step.invoke("late", self._sleeper, timeout=timeout)
        return None


def nodes(block: Block) -> Iterator[Node]:
    """Every node of a block, at any depth."""
    for node in block:
        yield node
        match node:
            case Invoke(block=inner) | Try(block=inner):
                yield from nodes(inner)
            case Gather(branches=branches):
                for branch in branches:
                    yield from nodes(branch)
            case _:
                pass
