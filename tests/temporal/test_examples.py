"""The examples with a crash at the places that matter, on Temporal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Function
from durably.core.ids import new_id
from durably.core.steps import Point
from durably.testing import crash_matrix
from durably.testing.conformance import Kill
from durably.testing.conformance.subject import at
from durably.testing.crash.engines import Store
from tests.examples import test_research as research
from tests.examples.test_refund import amounts, fresh, told, zoe

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


async def test_no_crash_changes_a_report(client: Client) -> None:
    def temporal(functions: Sequence[Function[Any, Any]], store: Store) -> TemporalBackend:
        return worker(client, f"research-{store.id}", functions)

    points = "researcher::tool-read/after_effect"
    report = await crash_matrix(research.fresh, research.ASKED.model_dump(), backend=temporal, points=points)
    assert report.ok, report


def worker(client: Client, queue: str, functions: Sequence[Function[Any, Any]]) -> TemporalBackend:
    return TemporalBackend(client, task_queue=queue, functions=list(functions), heartbeat=timedelta(seconds=1))


@pytest.mark.parametrize(
    ("point", "key"),
    [("after_send", "gather[1]/ask-refund"), ("child_started", "tool-refund"), ("after_effect", "pay")],
)
async def test_no_crash_pays_a_refund_twice_or_never(client: Client, point: str, key: str) -> None:
    agent, bank = fresh()
    queue = run_id = new_id()
    fits = at(point, key)
    fired: list[Point] = []

    def probe(passed: Point) -> None:
        if not fired and fits(passed):
            fired.append(passed)
            raise Kill

    async with worker(client, queue, [agent, zoe]) as backend:
        backend.probe = probe
        run = await backend.start(agent, "Money!", run_id=run_id)
        with pytest.raises(Kill):
            await run.result()
    async with worker(client, queue, [agent, zoe]) as backend:
        result = await (await backend.run(run_id)).result()
    assert fired
    assert amounts(bank) == [20.0]
    assert told(result) == "20.00 EUR for order 7 are on their way"
