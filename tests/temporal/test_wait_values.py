"""An event finds those who wait for it by the values that it has: the law that both go by the same values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.backends.temporal.hub_names import HUBS, hub_of_match, hubs_of_event, value_of_match
from durably.backends.temporal.hub_worker import CACHED
from durably.backends.temporal.wait_hub import PARTS
from durably.core import Event
from durably.core.events import matches, same_json

KEYS = st.sampled_from(["a", "b"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 1.5, 2**53, 2**53 + 1, 2.0**53, 1e300, "", "1", "é", "true"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


@given(VALUES, VALUES)
def test_one_value_and_one_hub_for_values_that_are_the_same(one: Any, other: Any) -> None:
    waited = [{"at": value} for value in (one, other)]
    assert (len({value_of_match("name", match) for match in waited}) == 1) is same_json(one, other)
    if same_json(one, other):
        assert len({hub_of_match("queue", "name", match) for match in waited}) == 1


@given(VALUES, st.dictionaries(st.sampled_from(["a", "b", "a.b", "data.a"]), VALUES, max_size=2))
def test_an_event_finds_the_hub_of_a_match_if_it_matches(data: Any, match: dict[str, Any]) -> None:
    found = hubs_of_event("queue", Event("name", data), [sorted(match)])
    expected = {hub_of_match("queue", "name", match): [value_of_match("name", match)]}
    assert (found == expected) is matches(Event("name", data), match)


def test_an_event_that_has_several_values_meets_each_hub_once() -> None:
    data = {str(n): n for n in range(500)}
    found = hubs_of_event("queue", Event("name", data), [[path] for path in data])
    assert sorted(value for values in found.values() for value in values) == sorted(
        value_of_match("name", {path: value}) for path, value in data.items()
    )
    assert len(found) == HUBS, "however many values there are, they are shared by so many hubs"


@pytest.mark.parametrize("other", [("queue", "other"), ("other", "name")])
def test_names_and_queues_have_hubs_of_their_own(other: tuple[str, str]) -> None:
    assert hub_of_match("queue", "name", {}) != hub_of_match(*other, {})


def test_a_worker_keeps_all_hubs_of_a_name_with_their_parts() -> None:
    assert HUBS * (1 + PARTS) <= CACHED
