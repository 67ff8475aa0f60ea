"""Random operators on Temporal's server: workers that come and go, with what they keep of runs, and evicted."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from durably.backends.temporal import TemporalBackend
from durably.testing.fuzz.subject_machine import SubjectStateMachine
from tests.random_programs import FEW
from tests.temporal.subject import TemporalSubject

EXAMPLES = 60 if os.environ.get("DURABLY_LONG") else 3

PACE = 0.0005
"""Seconds that one second of a program takes: an hour takes two."""

CACHES: dict[str, dict[str, Any]] = {"cached": {}, "evicted": {"max_cached_workflows": 0}}


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.timeout(90 * EXAMPLES)
@pytest.mark.parametrize("cache", CACHES)
def test_no_law_is_broken(temporal_address: str, cache: str) -> None:
    class OnTemporal(SubjectStateMachine):
        capabilities = TemporalBackend.capabilities
        pace = PACE

        def make_subject(self) -> TemporalSubject:
            return TemporalSubject(temporal_address, **CACHES[cache])

    run_state_machine_as_test(OnTemporal, settings=settings(FEW, max_examples=EXAMPLES, stateful_step_count=12))
