"""The contract on the protocol harness, over ASGI, and on a real dev server, over TCP.

On the harness twice: as it is, and with every request replayed from the start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.testing.conformance import *  # noqa: F403  # brings the tests
from durably.testing.conformance import Subject, load_gaps
from tests.inngest.subject import EngineSubject, ServerSubject

GAPS = Path(__file__).with_name("gaps.toml")

UNSURE = "test_c30_priority_goes_first_in_the_queue"
"""On a server it may pass or not: in the one trial that was made priority had no effect."""

LONG = ["test_c06_a_crash_at_any_point_changes_nothing", "test_c06_a_crash_during_recovery_changes_nothing"]

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(params=["engine", "replaying", "server"])
def subject(request: pytest.FixtureRequest) -> Subject:
    subject: Subject
    match request.param:
        case "engine":
            subject = EngineSubject()
        case "replaying":
            subject = EngineSubject(hold=0)
        case _:
            if request.node.originalname == UNSURE:
                pytest.skip("what a real server makes of priority is not known well enough")
            if request.node.originalname in LONG:
                pytest.skip("hundreds of crashes, which take a quarter of an hour in real time")
            subject = ServerSubject(request.getfixturevalue("server"))
    subject.gaps = load_gaps(GAPS)
    if request.node.originalname in subject.gaps:
        subject.patience = 3.0  # some of them would wait for ever
    return subject
