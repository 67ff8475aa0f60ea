"""The harness's laws on Inngest: agents and the example program, crashed at every point and started again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from durably.backends.inngest import InngestBackend
from durably.core import Agent, Function, MemorySessions, current_step, tool
from durably.testing import ScriptedModel, call, crash_matrix
from durably.testing.crash.engines import Engine, Store
from durably.testing.inngest import InngestEngine
from tests.core.test_article import Channel, example, script

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]


class Opener:
    """Opens the backend of one life: the harness of its store outlives it."""

    def __init__(self, hold: float, **options: Any) -> None:
        self._hold = hold
        self._options = options
        self._engines: WeakKeyDictionary[Store, InngestEngine] = WeakKeyDictionary()

    def __call__(self, functions: Sequence[Function[Any, Any]], store: Store) -> InngestBackend:
        engine = self._engines.setdefault(store, InngestEngine(seed=store.seed, backoff=1.0))
        return InngestBackend(
            engine.client(),
            functions,
            serve=engine.serve,
            now=engine.now,
            poll=0.001,
            grace=0.5,
            hold=0.0 if store.evict else self._hold,
            **self._options,
        )


def engine(hold: float = 60.0, **options: Any) -> Engine:
    return Engine(name="inngest", open=Opener(hold, **options))


@tool
async def charge(order_id: str) -> str:
    """Charge an order."""
    return f"{order_id} charged under {current_step().idempotency_key}"


@tool(effect="pure")
async def look_up(name: str) -> str:
    """Look something up."""
    return f"{name} found"


def agent() -> Agent:
    model = ScriptedModel([call("look_up", name="a"), call("look_up", name="b")], call("charge", order_id="7"), "Done.")
    return Agent("agent", model=model, instructions="You charge.", tools=[look_up, charge])


async def test_an_agent_with_parallel_tools_keeps_the_laws() -> None:
    report = await crash_matrix(agent, "Charge order 7.", backend=engine())
    assert report.ok, report


async def test_the_same_when_every_call_is_replayed() -> None:
    report = await crash_matrix(
        agent, "Charge order 7.", backend=engine(hold=0.0), points=("after_effect", "before_result")
    )
    assert report.ok, report


def article() -> Function[Any, Any]:
    handle_message: Function[Any, Any] = example.build(ScriptedModel(script("0s")), MemorySessions(), now=lambda: 1e9)[
        0
    ]
    return handle_message


async def test_the_example_program_keeps_the_laws() -> None:
    asked = example.Incoming(text="Where is order 7?", session_key="ann")
    served = engine(resources={"channel": Channel()})
    # Where a crash can lose or double something; all points take minutes (and were seen to pass).
    points = ("after_effect", "after_send", "child_done", "before_result")
    report = await crash_matrix(article, asked, backend=served, points=points)
    assert report.ok, report
    assert len(report.cells) > 15
