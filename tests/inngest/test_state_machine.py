"""Random operators on the harness of Inngest: apps that come and go, as they are and with each request replayed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from durably.backends.inngest import InngestBackend
from durably.core import Capabilities
from durably.testing.fuzz.strategies import Missed
from durably.testing.fuzz.subject_machine import SubjectStateMachine
from tests.inngest.subject import EngineSubject
from tests.random_programs import FEW

EXAMPLES = 100 if os.environ.get("DURABLY_LONG") else 6


pytestmark = pytest.mark.usefixtures("quiet")


class OnInngest(SubjectStateMachine):
    capabilities: ClassVar[Capabilities | None] = InngestBackend.capabilities
    crons: ClassVar[Sequence[Missed]] = ("once",)
    hold: ClassVar[float] = 60.0

    def make_subject(self) -> EngineSubject:
        return EngineSubject(hold=self.hold)


class OnInngestReplaying(OnInngest):
    hold: ClassVar[float] = 0.0


@pytest.mark.timeout(60 * EXAMPLES)
@pytest.mark.parametrize("machine", [OnInngest, OnInngestReplaying], ids=["engine", "replaying"])
def test_no_law_is_broken(machine: type[OnInngest]) -> None:
    run_state_machine_as_test(machine, settings=settings(FEW, max_examples=EXAMPLES, stateful_step_count=12))
