"""The oracle: what a program must return and do, from its tree alone, without running anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from durably.testing.fuzz.programs import (
    AgentTools,
    AskAndWait,
    Block,
    Gather,
    Invoke,
    InvokeTooSlow,
    Node,
    Send,
    Step,
    Try,
    WaitForOutside,
)

__all__ = ["Expected", "expect"]


class _BlockFailsError(Exception):
    """The block fails here."""


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
    """What a program must come to."""
    expected = Expected()
    try:
        expected.result = _expect(block, "", expected)
    except _BlockFailsError:
        expected.fails = True
    return expected


def _expect(block: Block, place: str, expected: Expected) -> list[Any]:
    return [_expect_node(node, f"{place}.{index}", expected) for index, node in enumerate(block)]


def _expect_node(node: Node, place: str, expected: Expected) -> Any:
    match node:
        case Step(broken=True) | InvokeTooSlow():
            expected.children += isinstance(node, InvokeTooSlow)
            raise _BlockFailsError
        case Step(value=value):
            expected.effects[place] += 1
            return value
        case Send(count=count):
            expected.told += count
            return count
        case AskAndWait(question=number) | WaitForOutside(key=number):
            return number
        case AgentTools(turns=turns):
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
            except _BlockFailsError:
                return "caught"
    return None


def _expect_gather(branches: tuple[Block, ...], place: str, expected: Expected) -> list[Any]:
    results: list[Any] = []
    failed = False
    for index, branch in enumerate(branches):
        try:
            results.append(_expect(branch, f"{place}.{index}", expected))
        except _BlockFailsError:
            failed = True
    if failed:
        raise _BlockFailsError
    return results
