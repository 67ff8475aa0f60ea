"""Hubs tell runs by an activity: in bounded lots, and until each run knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from durably.backends.temporal import delivery
from durably.backends.temporal.delivery import Delivery, RunTeller, lots_of
from durably.backends.temporal.payloads import DELIVER

SIZES = st.lists(st.integers(1, 9), max_size=9)


@given(SIZES, st.integers(1, 5))
def test_lots_have_all_in_their_order_and_none_has_too_many(sizes: list[int], most: int) -> None:
    deliveries: list[Delivery] = [
        {"event": n, "to": [[n, place] for place in range(size)]} for n, size in enumerate(sizes)
    ]
    lots = [*lots_of(deliveries, most)]
    flat = [(each["event"], to) for lot in lots for each in lot for to in each["to"]]
    assert flat == [(each["event"], to) for each in deliveries for to in each["to"]]
    counts = [sum(len(each["to"]) for each in lot) for lot in lots]
    assert all(count == most for count in counts[:-1])
    assert all(0 < count <= most for count in counts)


class Runs:
    """Signals that arrive, or do not.

    Args:
        errors: What the signals to a run end with, one after another, before one arrives.
    """

    def __init__(self, errors: dict[str, list[RPCStatusCode]]) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.tries = 0
        self._errors = errors

    async def tell(self, run: str, *args: Any) -> None:
        self.tries += 1
        if self._errors.get(run):
            raise RPCError("not now", self._errors[run].pop(0), b"")
        self.told.append((run, *args))


@pytest.mark.asyncio
async def test_a_run_that_cannot_be_reached_is_told_again_and_one_that_takes_no_more_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "SHORTEST_PAUSE", 0)
    away = [RPCStatusCode.UNAVAILABLE, RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.DEADLINE_EXCEEDED]
    runs = Runs({"away": away, "full": [RPCStatusCode.INVALID_ARGUMENT]})
    event = {"name": "go"}
    deliveries = [{"event": event, "to": [["away", "a"], ["full", "b"], ["there", "c"]]}]
    await ActivityEnvironment().run(RunTeller(runs.tell).deliver_all, deliveries)
    assert runs.told == [("there", DELIVER, "c", event), ("away", DELIVER, "a", event)]
    assert runs.tries == 6
    assert "run full cannot be told" in caplog.text
