"""A history is JSON Lines, versioned, and refuses what it does not understand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.core import SerializationError
from durably.core.history import History, StepRecord

RECORDS = st.builds(
    StepRecord,
    run_id=st.just("r"),
    seq=st.just(0),
    key=st.text(),
    kind=st.sampled_from(["run", "step", "invoke", "send_event", "sleep", "wait_for_event"]),
    status=st.sampled_from(["started", "retrying", "completed", "failed", "cancelled"]),
    attempt=st.integers(1, 9),
    name=st.text(),
    input=st.text(),
    output=st.none() | st.just('{"a":1}'),
    error=st.none() | st.dictionaries(st.text(), st.text()),
    due=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    at=st.floats(allow_nan=False, allow_infinity=False),
    took=st.floats(0, 9),
)

WRITTEN_BY_VERSION_1 = """\
{"v":1,"run_id":"r","seq":0,"key":"","kind":"run","status":"started","name":"f","output":"{\\"name\\":\\"e\\"}","at":1.0}
{"v":1,"run_id":"r","seq":1,"key":"a","kind":"step","status":"completed","input":"7","output":"\\"ok\\"","at":2.0,"took":0.5}
{"v":1,"run_id":"r","seq":2,"key":"","kind":"run","status":"completed","name":"f","output":"null","at":3.0}
"""


@given(RECORDS)
def test_a_record_comes_back_equal(record: StepRecord) -> None:
    assert StepRecord.from_json(record.to_json()) == record


def test_version_1_loads_for_ever(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text(WRITTEN_BY_VERSION_1)
    history = History.load(tmp_path / "old.jsonl")
    assert (history.run_id, history.function, history.status) == ("r", "f", "completed")
    assert [(step.key, step.value) for step in history.steps()] == [("a", "ok")]
    assert history.to_jsonl() == WRITTEN_BY_VERSION_1


@pytest.mark.parametrize("version", ["2", "0", '"1"', "null"])
def test_another_version_is_refused(version: str) -> None:
    with pytest.raises(SerializationError, match="schema version"):
        History.from_jsonl(WRITTEN_BY_VERSION_1.replace('"v":1', f'"v":{version}'))


def test_a_gap_a_foreign_record_and_nonsense_are_refused() -> None:
    lines = WRITTEN_BY_VERSION_1.splitlines()
    with pytest.raises(SerializationError, match="record 1 of run r is missing"):
        History.from_jsonl("\n".join([lines[0], lines[2]]))
    with pytest.raises(SerializationError, match="not a step record"):
        History.from_jsonl(lines[0] + "\n{]")
    with pytest.raises(SerializationError, match="an empty history"):
        History.from_jsonl("")


def test_the_step_id_of_a_key() -> None:
    keys = {"think": "think", "think:1": "think", "gather[0]/look": "look", "gather:1[2]/gather[0]/look:3": "look"}
    assert {key: StepRecord("r", 0, key, "step", "completed").step_id for key in keys} == keys
