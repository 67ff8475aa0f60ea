"""The page on Temporal runs against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_docs import ROOT, run_page


@pytest.mark.timeout(180)
def test_every_block_runs(temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(ROOT / "docs" / "temporal.md", monkeypatch, **{"localhost:7233": temporal_address})
    assert (tmp_path / "order-7.jsonl").read_text().count("\n") > 3
