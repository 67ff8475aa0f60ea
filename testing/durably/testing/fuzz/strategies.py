"""Hypothesis strategies for programs, faults and events from outside.

What :func:`programs` draws goes to :func:`durably.testing.fuzz.faulted_runs.run_under_faults`, which runs it under what
:func:`faults` and :func:`outside_events` draw, and compares it with the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("durably.testing.fuzz.strategies needs Hypothesis: pip install 'durably[testing]'") from error

from durably.core import Capabilities
from durably.testing.fuzz.faults import Fault, OutsideEvent
from durably.testing.fuzz.programs import (
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
    SingletonMode,
    Sleep,
    Step,
    ToolUse,
    Try,
    WaitForOutside,
    WaitInVain,
)

__all__ = ["Missed", "faults", "forks", "outside_events", "programs"]

Missed = Literal["once", "each"]

_KEYS = st.integers(0, 2)
_SECONDS = st.sampled_from([0.0, 0.5, 7.0, 3600.0])
_VALUES = st.integers(-3, 3)


def _leaves(capabilities: Capabilities | None, crons: Sequence[Missed]) -> st.SearchStrategy[Node]:
    steps = st.builds(Step, st.sampled_from(["a", "b"]), _VALUES, st.integers(0, RETRIES))
    leaves: list[st.SearchStrategy[Node]] = [
        steps,
        steps,
        st.builds(Step, st.sampled_from(["a", "b"]), _VALUES, broken=st.just(True)),
        st.builds(Sleep, _SECONDS),
        st.builds(Send, st.integers(0, 3), st.none() | _SECONDS),
        st.builds(AskAndWait, _KEYS),
        st.builds(WaitInVain, _SECONDS),
        st.builds(WaitForOutside, _KEYS),
        st.builds(InvokeTooSlow, st.sampled_from([0.5, 7.0])),
        st.builds(AgentTools, _turns(), st.booleans()),
        st.builds(AgentTools, _turns(), st.booleans()),
    ]
    if _has(capabilities, "retry"):
        leaves.append(st.builds(Heals, _VALUES))
    modes: list[SingletonMode] = []
    if _has_rule(capabilities, "singleton"):
        modes.extend(("cancel", "skip"))
    if _has_rule(capabilities, "singleton_queue"):
        modes.append("queue")
    if modes:
        keys = st.lists(st.integers(0, 1), min_size=1, max_size=3).map(tuple)
        leaves.append(st.builds(Contend, st.sampled_from(modes), keys))
    if crons and _has_rule(capabilities, "cron"):
        leaves.append(st.builds(AwaitTick, st.sampled_from(crons)))
    return st.one_of(leaves)


def _has(capabilities: Capabilities | None, feature: str) -> bool:
    """Whether an engine has a feature that others declare as a gap."""
    return capabilities is None or feature not in capabilities.gaps


def _has_rule(capabilities: Capabilities | None, rule: str) -> bool:
    """Whether an engine has a rule of flow control."""
    return capabilities is None or capabilities.flow_control[rule].how != "refused"


def _turns() -> st.SearchStrategy[tuple[tuple[ToolUse, ...], ...]]:
    kinds = st.sampled_from(["plain", "plain", "approved", "changed", "refused", "function", "ask", "start", "later"])
    turn = st.lists(st.builds(ToolUse, kinds, st.integers(0, 5)), min_size=1, max_size=3).map(tuple)
    return st.lists(turn, max_size=2).map(tuple)


def _blocks(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Block]:
    return st.lists(inner, max_size=4).map(tuple)


def _branching(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    blocks = _blocks(inner)
    gathers = st.builds(Gather, st.lists(blocks, max_size=3).map(tuple))
    return st.one_of(gathers, gathers, st.builds(Invoke, _blocks(_or_function_failure(inner))), st.builds(Try, blocks))


def _or_function_failure(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    # Only where nothing can catch it: code that catches it would decide by the number of the attempt.
    return st.one_of(inner, inner, inner, st.builds(FunctionFailure, st.integers(1, RETRIES)))


def programs(
    *, leaves: int = 12, capabilities: Capabilities | None = None, crons: Sequence[Missed] = ("once", "each")
) -> st.SearchStrategy[Block]:
    """Random trees of steps, branches, calls, events, sleeps, waits, agents, rivals, crons and failures.

    Args:
        leaves: About how many leaves a tree has at most.
        capabilities: What the engine has that will run them: what it declares as a gap is left out.
        crons: What becomes of the times that crons missed which programs wait for; empty: they wait for none.
    """
    node: st.SearchStrategy[Any] = st.recursive(_leaves(capabilities, crons), _branching, max_leaves=leaves)
    return st.lists(_or_function_failure(node), min_size=1, max_size=5).map(tuple)


def forks(*, capabilities: Capabilities | None = None) -> st.SearchStrategy[int | None]:
    """Whether a run is forked once it has ended, and behind which of its steps, counted round and round."""
    return st.none() | st.integers(0, 20) if _has(capabilities, "fork") else st.none()


def faults(*, most: int = 4) -> st.SearchStrategy[list[Fault]]:
    """Random plans of faults.

    Args:
        most: How many faults a plan has at most.
    """
    after = st.integers(0, 25)
    return st.lists(
        st.one_of(
            st.builds(Fault, st.just("crash"), after),
            st.builds(Fault, st.just("crash"), after),
            st.builds(Fault, st.just("steal"), after),
            st.builds(Fault, st.just("refuse"), after, st.sampled_from([1, 2, 5, 9, 20])),
            st.builds(Fault, st.sampled_from(["forward", "back"]), after, st.sampled_from([1, 3600, 10**6])),
            st.builds(Fault, st.sampled_from(["again", "stop", "stop"]), after),
        ),
        max_size=most,
    )


def outside_events(*, most: int = 4) -> st.SearchStrategy[list[OutsideEvent]]:
    """Random schedules of events from outside: early, late, twice, in any order, for nobody.

    Args:
        most: How many deliveries a schedule has at most.
    """
    return st.lists(st.builds(OutsideEvent, st.integers(0, 40), _KEYS, st.integers(0, 3)), max_size=most)
