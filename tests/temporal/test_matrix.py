"""The crash matrix on Temporal: a worker crashed in process at every kind of point, with every kind of step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Context, Function, function
from durably.testing import crash_matrix
from durably.testing.crash.engines import Store, find_engine
from durably.testing.crash.experiment import run_experiment
from durably.testing.crash.law_checks import broken_laws
from durably.testing.crash.scenario import Scenario
from tests.temporal.world import LEDGER, answer, backend, cashier, clerk, effects, world

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

POINTS = (
    "world::run/before_first",
    "cashier/before_start",
    "cashier::think/after_effect",
    "cashier::think:1/before_body",
    "tool-charge/in_body",
    "gather[0]/tool-charge/after_effect",
    "gather[1]/tool-charge/after_commit",
    "clerk/child_started",
    "clerk/child_done",
    "aside/before_body",
    "aside/after_effect",
    "aside/after_commit",
    "rest/before_start",
    "gather[0]/reply/registered",
    "gather[1]/ask/after_send",
    "note/after_effect",
    "last/after_commit",
    "world::run/before_result",
)
"""At least one of each kind, and of each kind of step."""


@pytest.mark.parametrize("cache", [100, 0])
async def test_the_laws_hold_wherever_a_worker_crashes(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: int
) -> None:
    ledger = tmp_path / "effects.jsonl"
    monkeypatch.setenv(LEDGER, str(ledger))

    def temporal(functions: Sequence[Function[Any, Any]], store: Store) -> TemporalBackend:
        return backend(client, f"matrix-{store.id}", max_cached_workflows=cache)

    report = await crash_matrix(
        world, backend=temporal, functions=[cashier, clerk, answer], points=POINTS[:: 1 if cache else 3]
    )
    assert report.ok, report
    assert {name for name, *_ in effects(ledger)} == {"aside", "charge 1", "charge 2", "charge 3", "last", "question"}


@function("starved")
async def starved(ctx: Context[None]) -> str:
    await ctx.step.run("first", work)
    return await ctx.step.run("second", work)


class Stall:
    """The next body keeps the event loop busy for longer than a heartbeat may take, as a busy machine does."""

    due = False


async def work() -> str:
    if Stall.due:
        Stall.due = False
        time.sleep(1.5)  # noqa: ASYNC251
    return "done"


async def test_a_body_that_temporal_repeats_by_itself_breaks_no_law(client: Client) -> None:
    def temporal(functions: Sequence[Function[Any, Any]], store: Store) -> TemporalBackend:
        return TemporalBackend(
            client, functions=functions, task_queue=f"starved-{store.id}", heartbeat=timedelta(seconds=0.5)
        )

    scenario = Scenario(target=starved, engine=find_engine(temporal))
    baseline = await run_experiment(scenario)
    Stall.due = True
    found = await run_experiment(scenario)
    first = [entry.attempt for entry in found.ledger.of("started") if entry.key == "first"]
    assert len(first) > 1, "no heartbeat came in time"
    assert broken_laws(baseline, found) == []
