"""Values against JSON schemas, compared with the package ``jsonschema`` where all keywords are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from durably.core.schema_check import schema_complaint


@dataclass
class Item:
    """Refers to itself, which gives a reference in the schema."""

    name: str
    parts: list[Item] | None = None


class Order(BaseModel):
    model_config = {"extra": "forbid"}

    item: Item | Literal["none", 7]
    amount: float
    count: int = 1
    notes: dict[str, bool] = {}


SCHEMA = TypeAdapter(Order).json_schema()

NAMES = st.sampled_from(["item", "amount", "count", "notes", "name", "parts", "other"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 7, 2.5, 3.0, "none", "cup"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
ITEMS = st.fixed_dictionaries(
    {"name": st.text(max_size=3) | VALUES}, optional={"parts": st.none() | st.lists(VALUES, max_size=2)}
)
ORDERS = st.fixed_dictionaries(
    {"item": ITEMS | VALUES, "amount": st.floats(allow_nan=False, allow_infinity=False) | VALUES},
    optional={
        "count": st.integers() | VALUES,
        "notes": st.dictionaries(NAMES, st.booleans()) | VALUES,
        "other": VALUES,
    },
)


@given(VALUES | ORDERS)
def test_it_says_what_the_package_says(value: Any) -> None:
    assert (schema_complaint(SCHEMA, value) is None) == jsonschema.Draft202012Validator(SCHEMA).is_valid(value)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"amount": 1}, "arguments: 'item' is missing"),
        ({"item": "none", "amount": "1"}, "arguments.amount: '1' is no number"),
        ({"item": "none", "amount": True}, "arguments.amount: True is no number"),
        ({"item": "none", "amount": 1, "to": "Ann"}, "arguments: 'to' is not known"),
        ({"item": "none", "amount": 1, "notes": {"paid": 1}}, "arguments.notes.paid: 1 is no boolean"),
        ({"item": "both", "amount": 1}, "arguments.item: 'both' is none of what may be there"),
        ([], "arguments: [] is no object"),
    ],
)
def test_it_names_the_place(value: Any, complaint: str) -> None:
    assert schema_complaint(SCHEMA, value) == complaint


@pytest.mark.parametrize(
    "schema", [{"$ref": "https://example/x"}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "z"}]
)
def test_what_it_does_not_know_it_leaves_to_the_tool(schema: dict[str, Any]) -> None:
    assert schema_complaint(schema, "x") is None


def test_a_schema_may_allow_nothing() -> None:
    assert schema_complaint({"properties": {"x": False}}, {"x": 1}) == "arguments.x: nothing may be there"
    assert schema_complaint({"allOf": [{"enum": [True]}]}, 1) == "arguments: 1 is not one of [True]"
