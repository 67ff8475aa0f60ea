"""Approval and compaction on the engines of this library; the others have the same test."""

from __future__ import annotations

import pytest

from tests.conftest import Open
from tests.core.bounded import BOUNDED, check_bounded


@pytest.mark.asyncio
@pytest.mark.parametrize("evict", ["never", "always"])
async def test_a_person_decides_and_a_summary_takes_over(open_backend: Open, evict: str) -> None:
    async with open_backend(BOUNDED, evict=evict) as backend:
        await check_bounded(backend)
