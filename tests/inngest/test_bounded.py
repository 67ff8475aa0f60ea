"""Approval and compaction on Inngest."""

from __future__ import annotations

import asyncio

import pytest

from durably.testing.inngest import InngestEngine
from tests.core.bounded import BOUNDED, check_bounded
from tests.inngest.conftest import OpenInngest


@pytest.mark.asyncio
async def test_a_person_decides_and_a_summary_takes_over(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    async with open_inngest(*BOUNDED) as backend:
        checking = asyncio.ensure_future(check_bounded(backend))
        while not checking.done():
            await engine.rest()
            if not engine.advance():
                await asyncio.sleep(0)
        await checking
