"""Approval and compaction on Temporal."""

from __future__ import annotations

import pytest

from tests.core.bounded import BOUNDED, check_bounded
from tests.temporal.conftest import OpenTemporal


@pytest.mark.asyncio
@pytest.mark.timeout(180)
@pytest.mark.parametrize("options", [{}, {"max_cached_workflows": 0}], ids=["cached", "evicted"])
async def test_a_person_decides_and_a_summary_takes_over(open_temporal: OpenTemporal, options: dict[str, int]) -> None:
    async with open_temporal(*BOUNDED, worker_options=options) as backend:
        await check_bounded(backend)
