"""Hypothesis strategies for programs, faults and events from outside.

What :func:`programs` draws goes to :func:`durably.testing.fuzz.faulted_runs.run_under_faults`, which runs it under what
:func:`faults` and :func:`outside_events` draw, and compares it with the oracle.
"""

from __future__ import annotations

from typing import Any

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("durably.testing.fuzz.strategies needs Hypothesis: pip install 'durably[testing]'") from error

from durably.testing.fuzz.faults import Fault, OutsideEvent
from durably.testing.fuzz.programs import (
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
)

__all__ = ["faults", "outside_events", "programs"]

_KEYS = st.integers(0, 2)
_SECONDS = st.sampled_from([0.0, 0.5, 7.0, 3600.0])


def _leaves() -> st.SearchStrategy[Node]:
    values = st.integers(-3, 3)
    runs = st.builds(Step, st.sampled_from(["a", "b"]), values, st.integers(0, RETRIES))
    return st.one_of(
        runs,
        runs,
        st.builds(Step, st.sampled_from(["a", "b"]), values, broken=st.just(True)),
        st.builds(Sleep, _SECONDS),
        st.builds(Send, st.integers(0, 3), st.none() | _SECONDS),
        st.builds(AskAndWait, _KEYS),
        st.builds(WaitInVain, _SECONDS),
        st.builds(WaitForOutside, _KEYS),
        st.builds(InvokeTooSlow, st.sampled_from([0.5, 7.0])),
        st.builds(AgentTools, _turns()),
    )


def _turns() -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    turn = st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True).map(tuple)
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


def programs(*, leaves: int = 12) -> st.SearchStrategy[Block]:
    """Random trees of steps, branches, calls, events, sleeps, waits, tool calls and failures.

    Args:
        leaves: About how many leaves a tree has at most.
    """
    node: st.SearchStrategy[Any] = st.recursive(_leaves(), _branching, max_leaves=leaves)
    return st.lists(_or_function_failure(node), min_size=1, max_size=5).map(tuple)


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
