"""An event finds those who wait for it by the values that it has: the law that both go by the same values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.backends.temporal.wait_hub import hub_of_match, hubs_of_event
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
def test_one_hub_for_values_that_are_the_same(one: Any, other: Any) -> None:
    hubs = {hub_of_match("queue", "name", {"at": value}) for value in (one, other)}
    assert (len(hubs) == 1) is same_json(one, other)


@given(VALUES, st.dictionaries(st.sampled_from(["a", "b", "a.b", "data.a"]), VALUES, max_size=2))
def test_an_event_finds_the_hub_of_a_match_if_it_matches(data: Any, match: dict[str, Any]) -> None:
    event = Event("name", data)
    found = hubs_of_event("queue", event, [sorted(match)])
    assert (found == [hub_of_match("queue", "name", match)]) is matches(event, match)


@pytest.mark.parametrize("other", [("queue", "other"), ("other", "name")])
def test_names_and_queues_have_hubs_of_their_own(other: tuple[str, str]) -> None:
    assert hub_of_match("queue", "name", {}) != hub_of_match(*other, {})
