"""The trace of a run on Inngest is that of the same run in memory."""

from __future__ import annotations

import pytest

from durably.testing.conformance import MemorySubject
from tests.core.traced_runs import outline, traced
from tests.inngest.subject import EngineSubject


@pytest.mark.asyncio
async def test_the_trace_is_that_of_memory() -> None:
    on_inngest = await traced(EngineSubject())
    assert outline(on_inngest) == outline(await traced(MemorySubject()))
    arguments = on_inngest.step("tool-refund").input
    assert arguments is not None
    assert not arguments.is_digest  # its record has a digest; the model's call says what it stands for
    assert arguments.text.startswith('{"order_id":"1042"')
