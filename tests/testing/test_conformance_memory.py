from __future__ import annotations

from typing import Any

import pytest

from durably.testing.conformance import *  # noqa: F403  # the tests of the suite
from durably.testing.conformance import MemorySubject, Subject


@pytest.fixture(params=[{}, {"seed": 7, "max_resting": 0}, {"evict": "always"}], ids=["plain", "seed7", "evict"])
def subject(request: pytest.FixtureRequest) -> Subject:
    options: dict[str, Any] = request.param
    return MemorySubject(**options)
