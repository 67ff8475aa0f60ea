"""The spans of a run on Temporal are those of the same run in memory."""

from __future__ import annotations

import pytest

from durably.testing.conformance import MemorySubject
from tests.telemetry.traced_desk import shape_on
from tests.temporal.subject import TemporalSubject


@pytest.mark.asyncio
async def test_the_spans_are_those_of_memory(temporal_address: str) -> None:
    assert await shape_on(TemporalSubject(temporal_address)) == await shape_on(MemorySubject())
