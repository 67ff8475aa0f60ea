"""The contract on the protocol harness, over ASGI."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.testing.conformance import *  # noqa: F403  # brings the tests
from durably.testing.conformance import load_gaps
from tests.inngest.subject import EngineSubject

GAPS = Path(__file__).with_name("gaps.toml")


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> EngineSubject:
    subject = EngineSubject()
    subject.gaps = load_gaps(GAPS)
    if request.node.name in subject.gaps:
        subject.patience = 3.0  # some of them would wait for ever
    return subject
