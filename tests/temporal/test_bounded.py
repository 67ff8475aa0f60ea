"""Approval, compaction and verdicts on arguments, on Temporal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.bounded import BOUNDED, check_bounded
from tests.core.verdicts import check_verdicts, verdicts
from tests.temporal.conftest import OpenTemporal


@pytest.mark.asyncio
@pytest.mark.timeout(180)
@pytest.mark.parametrize("options", [{}, {"max_cached_workflows": 0}], ids=["cached", "evicted"])
async def test_a_person_decides_and_a_summary_takes_over(open_temporal: OpenTemporal, options: dict[str, int]) -> None:
    async with open_temporal(*BOUNDED, worker_options=options) as backend:
        await check_bounded(backend)


@pytest.mark.asyncio
@pytest.mark.timeout(180)
@pytest.mark.parametrize("options", [{}, {"max_cached_workflows": 0}], ids=["cached", "evicted"])
async def test_a_verdict_on_arguments_is_recorded(
    open_temporal: OpenTemporal, tmp_path: Path, options: dict[str, int]
) -> None:
    functions = verdicts(tmp_path)
    async with open_temporal(*functions, worker_options=options) as backend:
        await check_verdicts(backend, functions[0])
