"""The contract on a real Temporal server."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from durably.testing import conformance
from durably.testing.conformance import TESTS, Subject
from tests.temporal.subject import TemporalSubject

LONG = {
    "test_c06_a_crash_at_any_point_changes_nothing": "a server's crashes take seconds each; test_matrix.py and "
    "test_kill.py take one of every kind of point, under more laws than this",
    "test_c06_a_crash_during_recovery_changes_nothing": "likewise",
    "test_c26_a_patch_is_answered_alike_after_a_crash_at_any_point": "it takes a minute; of a retry and a fork, every "
    "point is tried",
    "test_c26_each_branch_goes_by_a_patch_unless_it_was_past_it": "likewise",
}
"""What runs only with ``DURABLY_LONG=1``, and why."""

ALL = bool(os.environ.get("DURABLY_LONG"))

pytestmark = pytest.mark.timeout(1900 if ALL else 180)

assert set(LONG) <= set(TESTS)
_tests: dict[str, Callable[[Subject], None]] = {
    name: getattr(conformance, name) for name in TESTS if ALL or name not in LONG
}
globals().update(_tests)


CACHES = {"cached": {}, "evicted": {"max_cached_workflows": 0}}
"""What a worker keeps of runs between their tasks: evicted, each task replays its run from the beginning."""


@pytest.fixture(params=CACHES)
def subject(temporal_address: str, request: pytest.FixtureRequest) -> TemporalSubject:
    subject = TemporalSubject(temporal_address, **CACHES[request.param])
    if ALL:
        subject.patience = 1800
    if request.param == "evicted":
        subject.unit *= 2  # one task after another, and each from the beginning
    return subject
