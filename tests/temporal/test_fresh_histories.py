"""What is broken only after a continue-as-new is noticed by the clauses that are tested there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from durably.backends.temporal import driver
from durably.backends.temporal.commands import HistoryRoom
from durably.backends.temporal.records import RunRecords
from durably.core.history import Kind, StepRecord
from durably.core.step_keys import Scope
from durably.testing.conformance import check
from tests.temporal.subject import TemporalSubject

pytestmark = pytest.mark.timeout(120)

Break = Callable[[pytest.MonkeyPatch], None]


class _Fading(RunRecords):
    """What is recalled from earlier histories has lost how exact its numbers were, and how often a step was tried."""

    def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = super().take(scope, key, kind, asked)
        if record is None:
            return None
        if record.error is not None:
            return replace(record, error={**record.error, "attempts": 0})
        rounded: Any = json.loads(record.output or "null", parse_int=lambda digits: int(float(digits)))
        return replace(record, output=json.dumps(rounded))


def _let_records_fade(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(driver, "RunRecords", _Fading)


def _let_code_stay(patch: pytest.MonkeyPatch) -> None:
    """Code that swallows what is to unwind it goes on."""
    patch.setattr(HistoryRoom, "check_left", lambda room: None)


def _forget_where_code_left(patch: pytest.MonkeyPatch) -> None:
    """Code that comes again to where it left is taken for new."""
    patch.setattr(HistoryRoom, "returning", property(lambda room: False, lambda room, value: None), raising=False)


BROKEN: dict[str, Break] = {
    "test_c04_the_replay_sees_equal_values": _let_records_fade,
    "test_c07_a_replay_does_and_says_nothing_again": _forget_where_code_left,
    "test_c11_a_step_error_is_the_same_on_replay": _let_records_fade,
    "test_c18_steps_begun_at_once_are_refused": _let_code_stay,
}


@pytest.mark.parametrize("test", BROKEN)
def test_a_fault_of_fresh_histories_is_noticed(
    temporal_address: str, monkeypatch: pytest.MonkeyPatch, test: str
) -> None:
    BROKEN[test](monkeypatch)
    (outcome,) = check(lambda: TemporalSubject(temporal_address), tests=f"{test}_in_the_fresh_history").outcomes
    assert outcome.result == "failed"
    assert "did not end" not in outcome.detail
