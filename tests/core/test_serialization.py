"""What a caller gets is what went through JSON, in the first run as on replay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from durably.core import SerializationError, user
from durably.core.errors import PayloadTooLargeError
from durably.core.messages import Transcript
from durably.core.serialization import codec_for, encode_input

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Order(BaseModel):
    id: str
    paid: bool = False


@dataclass
class Point:
    x: float
    when: datetime


@given(JSON)
def test_json_comes_back_equal(value: Any) -> None:
    codec = codec_for(Any)
    assert codec.decode(codec.encode(value, step=""), step="") == value


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (Order, Order(id="7")),
        (Point, Point(1.5, datetime(2026, 1, 1, tzinfo=UTC))),
        (bytes, b"\x00\xff"),
        (tuple[int, str], (1, "a")),
        (set[int], {3, 1}),
        (dict[int, Order], {1: Order(id="1")}),
        (int, 2**80),
        (datetime | None, None),
    ],
)
def test_typed_values_come_back_as_their_type(tp: Any, value: Any) -> None:
    codec = codec_for(tp)
    again = codec.decode(codec.encode(value, step=""), step="")
    assert (again, type(again)) == (value, type(value))


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": -math.inf}])
def test_nan_and_infinity_are_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match=r"step 's': -?(NaN|Infinity) has no JSON form"):
        codec_for(Any).encode(value, step="s")


def test_the_words_nan_and_infinity_are_not() -> None:
    assert codec_for(Any).encode(["NaN", "Infinity"], step="") == '["NaN","Infinity"]'


@pytest.mark.parametrize("value", [object(), open, [lambda: 1]])
def test_what_has_no_json_form_is_refused_with_advice(value: Any) -> None:
    with pytest.raises(SerializationError, match="give clients and connections to the backend as resources="):
        codec_for(Any).encode(value, step="s")


def test_a_value_that_is_not_what_the_annotation_says() -> None:
    codec = codec_for(str)
    with pytest.raises(SerializationError, match="cannot be read back as str"):
        codec.decode(codec.encode(5, step="s"), step="s")


def test_a_large_value_names_its_size_and_the_limit() -> None:
    with pytest.raises(PayloadTooLargeError, match="102 bytes as JSON, the limit is 10"):
        codec_for(str).encode("x" * 100, step="s", limit=10)


def test_a_large_input_is_kept_as_a_digest() -> None:
    assert encode_input(("x" * 10,), step="") == '"xxxxxxxxxx"'
    large = encode_input(("x" * 1000,), step="")
    assert large.endswith("of 1002 characters")
    assert large != encode_input(("y" * 1000,), step="")


def test_a_conversation_is_known_by_its_digest_however_it_grew() -> None:
    one = Transcript("s", [user("a"), user("b")])
    other = Transcript("s", [user("a")])
    assert encode_input((one,), step="") != encode_input((other,), step="")
    other.append(user("b"))
    assert encode_input((one,), step="") == encode_input((other,), step="")
