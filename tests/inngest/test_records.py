"""Records on Inngest: small, readable, and the same when read back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durably.backends.inngest.records import decode_record, encode_record
from durably.core.history import StepRecord
from durably.core.serialization import same_input, short_digest

keys = st.from_regex(r"(gather(:\d)?\[\d\]/){0,2}[a-z~ #\"]{1,8}(:\d)?", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
outputs = st.none() | values.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))


@given(
    key=keys | st.just(""),
    kind=st.sampled_from(["step", "invoke", "send_event", "sleep", "wait_for_event"]),
    status=st.sampled_from(["started", "retrying", "completed", "failed"]),
    attempt=st.integers(1, 9),
    asked=st.text(max_size=40),
    output=outputs,
    error=st.none() | st.just({"type": "ValueError", "message": "no"}),
    due=st.none() | st.just(1.5),
)
def test_a_record_is_read_as_it_was_written(asked: str, **fields: Any) -> None:
    record = StepRecord(run_id="r", seq=3, input=asked, at=12.5, took=0.25, **fields)
    kept = json.loads(json.dumps(encode_record(record), sort_keys=True))
    read = decode_record(kept, "r", 3)
    assert read is not None
    for name in ("key", "kind", "status", "attempt", "error", "due"):
        assert getattr(read, name) == getattr(record, name)
    assert (read.output is None) == (record.output is None)
    assert _exactly(read.value) == _exactly(record.value), "numbers too; only the order of an object's fields is free"
    assert same_input(read.input, asked)
    assert not same_input(read.input, asked + ".")


def _exactly(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def test_a_completed_step_is_its_key_and_its_value() -> None:
    asked = '{"order_id":"7"}'
    record = StepRecord("r", 0, "tool-get_order:1", "step", "completed", input=asked, output='"packed"', at=12.5)
    assert encode_record(record) == {f"tool-get_order:1/{short_digest(asked)[1:]}": "packed"}


def test_what_others_kept_is_not_a_record() -> None:
    others: list[Any] = [None, 5, [], {}, {"value": 1}, {"a/b": 1, "c/d": 2}, {"durably:": {}}]
    for data in [*others, {"a/b": 1, "durably:": 2}]:
        assert decode_record(data, "r", 0) is None
