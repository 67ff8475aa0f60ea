"""Approval, compaction and verdicts on arguments, on Inngest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from durably.testing.inngest import InngestEngine
from tests.core.bounded import BOUNDED, check_bounded
from tests.core.verdicts import check_verdicts, verdicts
from tests.inngest.conftest import OpenInngest


async def to_its_end(engine: InngestEngine, check: Coroutine[Any, Any, None]) -> None:
    checking = asyncio.ensure_future(check)
    while not checking.done():
        await engine.rest()
        if not engine.advance():
            await asyncio.sleep(0)
    await checking


@pytest.mark.asyncio
async def test_a_person_decides_and_a_summary_takes_over(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    async with open_inngest(*BOUNDED) as backend:
        await to_its_end(engine, check_bounded(backend))


@pytest.mark.asyncio
async def test_a_verdict_on_arguments_is_recorded(
    engine: InngestEngine, open_inngest: OpenInngest, tmp_path: Path
) -> None:
    functions = verdicts(tmp_path)
    async with open_inngest(*functions) as backend:
        await to_its_end(engine, check_verdicts(backend, functions[0]))
