"""Durable programs as data: a tree of nodes. What must come of one stands in ``oracle.py``, how it runs in
``durable_program.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CHANGED",
    "LONG",
    "RETRIES",
    "AgentTools",
    "AskAndWait",
    "AwaitTick",
    "Block",
    "Contend",
    "FunctionFailure",
    "Gather",
    "Heals",
    "Invoke",
    "InvokeTooSlow",
    "Node",
    "Send",
    "SingletonMode",
    "Sleep",
    "Step",
    "ToolKind",
    "ToolUse",
    "Try",
    "WaitForOutside",
    "WaitInVain",
    "nodes",
]

ToolKind = Literal["plain", "approved", "changed", "refused", "function", "ask", "start", "later"]
SingletonMode = Literal["cancel", "skip", "queue"]


@dataclass(frozen=True)
class Step:
    """A step whose body fails so many times and then returns its value, or always fails."""

    id: str
    value: int
    fails: int = 0
    broken: bool = False


@dataclass(frozen=True)
class Heals:
    """A step that fails until the run has failed, and somebody mended the world and retried it."""

    value: int


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
class AskAndWait:
    """A wait for an event that a branch beside it sends."""

    question: int


@dataclass(frozen=True)
class WaitInVain:
    """A wait for an event that never comes."""

    timeout: float


@dataclass(frozen=True)
class WaitForOutside:
    """A wait for an event from outside."""

    key: int


@dataclass(frozen=True)
class InvokeTooSlow:
    """A call of a function that takes longer than its timeout."""

    timeout: float


@dataclass(frozen=True)
class Contend:
    """Events that start runs of a singleton: one for each of the keys, all sent at once."""

    mode: SingletonMode
    keys: tuple[int, ...]


@dataclass(frozen=True)
class AwaitTick:
    """A wait for a function that a cron starts, with a sleep of months in a branch beside it."""

    missed: Literal["once", "each"]


@dataclass(frozen=True)
class ToolUse:
    """A call of a tool, which works on a value.

    ``plain``: a function does. ``approved``, ``changed``, ``refused``: it asks a person first, who says so.
    ``function``: a durable function does. ``ask``: another agent does, and is waited for. ``start``, ``later``: it is
    only started, at once or at a time.
    """

    kind: ToolKind
    value: int


@dataclass(frozen=True)
class AgentTools:
    """An agent that calls tools, a turn for each group, and shows its answers in pieces or as a whole."""

    turns: tuple[tuple[ToolUse, ...], ...]
    stream: bool = False


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
class FunctionFailure:
    """An error outside any step, in the first attempts of the function."""

    attempts: int


Node = (
    Step
    | Heals
    | Sleep
    | Send
    | AskAndWait
    | WaitInVain
    | WaitForOutside
    | InvokeTooSlow
    | Contend
    | AwaitTick
    | AgentTools
    | Gather
    | Invoke
    | Try
    | FunctionFailure
)
Block = tuple[Node, ...]

RETRIES = 2
CHANGED = 100
"""A person who changes the arguments of a call adds so much to the value."""

LONG = 10_000_000.0
"""Seconds; longer than any fault sets a clock back: a call that must be too slow is, and each month's cron comes."""


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
