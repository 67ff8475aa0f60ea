"""A short soak: two workers on one file, killed again and again while runs of every kind are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.laws import Facts, broken_laws
from tests.soak.run import soak


@pytest.mark.timeout(180)
@pytest.mark.asyncio
async def test_all_laws_hold_after_a_short_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await soak(
        tmp_path, seconds=8, workers=2, rate=5, harms=["SIGKILL"], pause=2, lease=15, seed=1, patience=120
    )
    facts = Facts.read(tmp_path)
    assert fleet.odd_exits == []
    assert broken_laws(facts) == []
    assert facts.lines["SIGKILL"], "no worker was killed"
    assert facts.bodies, "no body began"
