from __future__ import annotations

from pathlib import Path

import pytest

from durably.testing.conformance import *  # noqa: F403  # the tests of the suite
from durably.testing.conformance import Subject
from tests.testing.subjects import SQLiteSubject


@pytest.fixture(params=["never", "always"])
def subject(tmp_path: Path, request: pytest.FixtureRequest) -> Subject:
    return SQLiteSubject(tmp_path, evict=request.param)
