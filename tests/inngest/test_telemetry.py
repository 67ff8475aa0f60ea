"""The spans of a run on Inngest are those of the same run in memory."""

from __future__ import annotations

import pytest

from durably.testing.conformance import MemorySubject
from tests.inngest.subject import EngineSubject
from tests.telemetry.traced_desk import shape_on


@pytest.mark.asyncio
async def test_the_spans_are_those_of_memory() -> None:
    assert await shape_on(EngineSubject()) == await shape_on(MemorySubject())
