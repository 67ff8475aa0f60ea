"""The trace of a run on Temporal is that of the same run in memory."""

from __future__ import annotations

import pytest

from durably.testing.conformance import MemorySubject
from tests.core.traced_runs import outline, traced
from tests.temporal.subject import TemporalSubject


@pytest.mark.asyncio
async def test_the_trace_is_that_of_memory(temporal_address: str) -> None:
    assert outline(await traced(TemporalSubject(temporal_address))) == outline(await traced(MemorySubject()))
