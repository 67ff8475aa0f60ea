"""The crash matrix on Temporal: a worker crashed in process at every kind of point, with every kind of step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Function
from durably.testing import crash_matrix
from durably.testing.crash.engines import Store
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
