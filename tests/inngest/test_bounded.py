"""Approval, compaction and verdicts on arguments, on Inngest."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.testing.inngest import InngestEngine
from tests.core.bounded import BOUNDED, check_bounded
from tests.core.verdicts import check_verdicts, verdicts
from tests.inngest.conftest import OpenInngest, to_its_end


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
