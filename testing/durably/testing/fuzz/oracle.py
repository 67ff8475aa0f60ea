"""The oracle: what a program must return and do, from its tree alone, without running anything.

It goes through the tree as the code does, gives each step the key that the contract says it has, and keeps what came of
it. A retry and a fork are further passes over what is kept of the one before.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.testing.fuzz.programs import (
    CHANGED,
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
    nodes,
)

__all__ = ["MAIN", "Expected", "expect", "expect_fork", "may_cut"]

MAIN = "program"
"""The id of a program's own function."""

IDS: dict[type[Any], str] = {
    Heals: "mend",
    Sleep: "sleep",
    Send: "send",
    WaitInVain: "wait",
    WaitForOutside: "await",
    InvokeTooSlow: "late",
    Contend: "contend",
    AgentTools: "agent",
    Invoke: "invoke",
}
"""The step id of each kind of node that is one step."""

PAIRS = {"answer": "ask", "tick": "months"}
"""What one branch waits for, and what the branch beside it does for that."""

Order = dict[str, list[str]]
"""The keys of the steps of each scope, in their order; a scope is named by what its keys begin with."""


class _BlockFailsError(Exception):
    """The block fails here."""


@dataclass
class Expected:
    """What a program must come to.

    Attributes:
        result: What it returns, or ``None`` if it fails.
        fails: Whether the run fails.
        retried: Whether it failed first, and was retried.
        effects: How often each body must have its effect, by the node's place.
        told: How many events the listener gets.
        runs: How many runs each function has; of singletons and crons nothing is said here.
        children: How many of them are child runs.
        rivals: How many events each key of a singleton gets.
        order: The steps of each function whose runs are the program's own code.
        places: Where each step of the program's own function stands, by its key.
    """

    result: list[Any] | None = None
    fails: bool = False
    retried: bool = False
    effects: Counter[str] = field(default_factory=Counter)
    told: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    children: int = 0
    rivals: Counter[tuple[SingletonMode, int]] = field(default_factory=Counter)
    order: dict[str, Order] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def expect(block: Block) -> Expected:
    """What a program must come to, with a retry once it has failed and the world could be mended."""
    return _run_to_its_end(block).expected


def expect_fork(block: Block, cut: Mapping[str, bool]) -> Expected:
    """What a fork of a program's run must come to, once that has ended.

    Args:
        block: The program.
        cut: The keys of the steps that the fork begins with, and whether each has failed.
    """
    before = _run_to_its_end(block)
    kept = {}
    for key, place in before.expected.places.items():
        if key in cut and place in before.outcomes:
            kept[place] = _Outcome(failed=True) if cut[key] else before.outcomes[place]
    oracle = _Oracle(block, healed=before.healed, outcomes=kept)
    oracle.run()
    return oracle.expected


def _run_to_its_end(block: Block) -> _Oracle:
    oracle = _Oracle(block)
    oracle.run()
    if oracle.expected.fails and any(isinstance(node, Heals) for node in nodes(block)):
        oracle.reopen(MAIN)
        oracle.healed = oracle.expected.retried = True
        oracle.run()
    return oracle


def may_cut(cut: Collection[str]) -> bool:
    """Whether a fork may begin with these steps: one that waits for what was done before it began waits for ever."""
    for key in cut:
        scope, _, step_id = key.rpartition("/")
        for waits, does in PAIRS.items():
            if step_id == does and f"{scope.removesuffix('[1]')}[0]/{waits}" not in cut:
                return False
    return True


@dataclass(frozen=True)
class _Outcome:
    """What a step came to: a value, or a failure.

    Attributes:
        value: The value.
        failed: Whether it failed.
        final: Whether a retry of the run leaves a failure as it is.
    """

    value: Any = None
    failed: bool = False
    final: bool = False


class _Scope:
    """Numbers the steps of one scope of one run.

    Args:
        order: The steps of the run's scopes so far.
        prefix: What the keys of this one begin with.
    """

    def __init__(self, function: str, order: Order, prefix: str = "") -> None:
        self.function = function
        self._order = order
        self._prefix = prefix
        self._counts: Counter[str] = Counter()

    def key(self, step_id: str) -> str:
        """The key of the next use of a step id."""
        count = self._counts[step_id]
        self._counts[step_id] += 1
        return f"{self._prefix}{step_id}" + (f":{count}" if count else "")

    def step(self, step_id: str) -> str:
        """The key of a step that is recorded."""
        key = self.key(step_id)
        self._order.setdefault(self._prefix, []).append(key)
        return key

    def branches(self, count: int) -> Iterator[_Scope]:
        """The scopes of the branches of a gather."""
        key = self.key("gather")
        self._order.setdefault(self._prefix, []).append(key)
        for index in range(count):
            yield _Scope(self.function, self._order, f"{key}[{index}]/")


class _Oracle:
    """One pass after another over a program.

    Args:
        block: The program.
        healed: Whether the world is mended.
        outcomes: What is kept of earlier passes, by the node's place.
    """

    def __init__(self, block: Block, *, healed: bool = False, outcomes: Mapping[str, _Outcome] | None = None) -> None:
        self.healed = healed
        self.outcomes = dict(outcomes or {})
        self.expected = Expected()
        self._block = block
        self._runs: set[tuple[str, str]] = set()
        self._children: set[tuple[str, str]] = set()
        self._places: dict[tuple[str, str], str] = {}
        self._whole: dict[str, Order] = {}

    def run(self) -> None:
        """Go through the program once more."""
        expected = self.expected
        self._runs.add((MAIN, ""))
        try:
            expected.result, expected.fails = self._function(MAIN, self._block, ""), False
        except _BlockFailsError:
            expected.result, expected.fails = None, True
        expected.runs = Counter(function for function, _ in self._runs)
        expected.children = len(self._children)
        expected.order = {name: _steps_only(order) for name, order in self._whole.items()}
        expected.places = {key: place for (name, key), place in self._places.items() if name == MAIN}

    def reopen(self, function: str) -> None:
        """Forget the failures that a retry takes up: those with which the code, or a branch of it, ended."""
        for key in self._ends(self._whole[function], ""):
            place = self._places[function, key]
            outcome = self.outcomes.get(place)
            if outcome is not None and outcome.failed and not outcome.final:
                del self.outcomes[place]
                if f"child{place}" in self._whole:
                    self.reopen(f"child{place}")

    def _ends(self, order: Order, prefix: str) -> Iterator[str]:
        for key in reversed(order.get(prefix, [])):
            inner = [scope for scope in order if scope.startswith(f"{key}[") and scope.count("/") == key.count("/") + 1]
            ends = [end for scope in inner for end in self._ends(order, scope)]
            if key.rpartition("/")[2].partition(":")[0] != "gather":
                yield key
                return
            if ends:
                yield from ends
                return

    def _function(self, name: str, block: Block, place: str) -> list[Any]:
        order = self._whole[name] = defaultdict(list)
        return self._code(block, place, _Scope(name, order))

    def _code(self, block: Block, place: str, scope: _Scope) -> list[Any]:
        return [self._node(node, f"{place}.{index}", scope) for index, node in enumerate(block)]

    def _node(self, node: Node, place: str, scope: _Scope) -> Any:
        match node:
            case FunctionFailure():
                return None
            case Gather(branches=branches):
                return self._gather(branches, place, scope)
            case Try(block=block):
                try:
                    return self._code(block, place, scope)
                except _BlockFailsError:
                    return "caught"
            case AskAndWait() | AwaitTick():
                first, second = ("answer", "ask") if isinstance(node, AskAndWait) else ("tick", "months")
                waiting, doing = scope.branches(2)
                self._places[scope.function, waiting.step(first)] = f"{place}.{first}"
                self._places[scope.function, doing.step(second)] = f"{place}.{second}"
                return node.question if isinstance(node, AskAndWait) else "ticked"
        key = scope.step(node.id if isinstance(node, Step) else IDS[type(node)])
        self._places[scope.function, key] = place
        if place not in self.outcomes:
            self.outcomes[place] = self._perform(node, place)
        outcome = self.outcomes[place]
        if outcome.failed:
            raise _BlockFailsError
        return outcome.value

    def _gather(self, branches: tuple[Block, ...], place: str, scope: _Scope) -> list[Any]:
        results: list[Any] = []
        failed = False
        for index, (branch, inner) in enumerate(zip(branches, scope.branches(len(branches)), strict=True)):
            try:
                results.append(self._code(branch, f"{place}.{index}", inner))
            except _BlockFailsError:
                failed = True
        if failed:
            raise _BlockFailsError
        return results

    def _perform(self, node: Node, place: str) -> _Outcome:
        """What a step comes to that no earlier pass has done."""
        expected = self.expected
        match node:
            case InvokeTooSlow():
                self._call("sleeper", place)
                return _Outcome(failed=True, final=True)
            case Heals() if not self.healed:
                return _Outcome(failed=True)
            case Step(broken=True):
                return _Outcome(failed=True)
            case Step(value=value) | Heals(value=value):
                expected.effects[place] += 1
                return _Outcome(value)
            case Send(count=count):
                expected.told += count
                self._runs.update(("listener", f"{place}/{number}") for number in range(count))
                return _Outcome(count)
            case Contend(mode=mode, keys=keys):
                expected.rivals.update((mode, key) for key in keys)
                return _Outcome(len(keys))
            case WaitForOutside(key=key):
                return _Outcome(key)
            case AgentTools(turns=turns):
                self._call(f"agent{place}", place)
                uses = [(f"{turn}/{index}", use) for turn, uses in enumerate(turns) for index, use in enumerate(uses)]
                return _Outcome([self._tool(use, place, spot) for spot, use in uses])
            case Invoke(block=block):
                self._call(f"child{place}", place)
                try:
                    return _Outcome(self._function(f"child{place}", block, place))
                except _BlockFailsError:
                    return _Outcome(failed=True)
        return _Outcome()

    def _tool(self, use: ToolUse, place: str, spot: str) -> str:
        """What a tool answers."""
        if use.kind in ("approved", "changed", "refused"):
            self._runs.add(("desk", f"{place}/{spot}"))
            spot = f"{spot} {use.kind}"
        if use.kind == "refused":
            return "guarded was not run: a person refused it: no"
        self.expected.effects[f"{place}/{spot}"] += 1
        if use.kind in ("start", "later"):
            self._runs.add((f"helper{place}", spot))
            return "started"
        if use.kind in ("ask", "function"):
            self._call(f"helper{place}" if use.kind == "ask" else f"job{place}", spot)
        if use.kind == "changed":
            arguments = json.dumps({"spot": spot, "value": use.value + CHANGED})
            return f"A person changed the arguments: guarded was run with {arguments}\n{use.value + CHANGED}"
        return str(use.value)

    def _call(self, function: str, place: str) -> None:
        """Note a child run, which is the same one in each pass."""
        self._runs.add((function, place))
        self._children.add((function, place))


def _steps_only(order: Order) -> Order:
    """What is recorded: a gather has no record of its own."""
    steps = {
        scope: [key for key in keys if key.rpartition("/")[2].partition(":")[0] != "gather"]
        for scope, keys in order.items()
    }
    return {scope: keys for scope, keys in steps.items() if keys}
