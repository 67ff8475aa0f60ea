"""The desk for refunds: whatever crashes, a person is asked once, and money moves once."""

from __future__ import annotations

import pytest

from durably.testing import crash_matrix
from examples.refund_desk import desk
from tests.examples.test_refund import APPROVES, zoe


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_no_crash_changes_what_a_customer_is_told(backend: str) -> None:
    report = await crash_matrix(desk, "Where is my money? Order 1042.", backend=backend, functions=[zoe(APPROVES)])
    assert report.ok, report
    assert not report.error, report
