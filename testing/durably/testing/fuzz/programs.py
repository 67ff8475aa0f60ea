"""Durable programs as data: a tree of nodes. What must come of one stands in ``oracle.py``, how it runs in
``durable_program.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "LONG",
    "RETRIES",
    "AgentTools",
    "AskAndWait",
    "Block",
    "FunctionFailure",
    "Gather",
    "Invoke",
    "InvokeTooSlow",
    "Node",
    "Send",
    "Sleep",
    "Step",
    "Try",
    "WaitForOutside",
    "WaitInVain",
    "nodes",
]


@dataclass(frozen=True)
class Step:
    """A step whose body fails so many times and then returns its value, or always fails."""

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
class AgentTools:
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
class FunctionFailure:
    """An error outside any step, in the first attempts of the function."""

    attempts: int


Node = (
    Step
    | Sleep
    | Send
    | AskAndWait
    | WaitInVain
    | WaitForOutside
    | InvokeTooSlow
    | AgentTools
    | Gather
    | Invoke
    | Try
    | FunctionFailure
)
Block = tuple[Node, ...]

RETRIES = 2
LONG = 10_000_000.0
"""Seconds; longer than any fault sets a clock back, so that a call that must be too slow is."""


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
