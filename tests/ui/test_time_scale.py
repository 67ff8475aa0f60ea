"""The labels above a time line can be read: none of them covers another."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from durably.ui.time_scale import LABEL, SQUEEZED, TimeScale


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 5)), max_size=40), st.floats(0.001, 2000))
def test_no_label_covers_another(bodies: list[tuple[float, float]], lasts: float) -> None:
    scale = TimeScale(0.0, lasts, [(since, since + took) for since, took in bodies])
    breaks = [each.x + SQUEEZED / 2 for each in scale.breaks if each.label]
    places = sorted([*breaks, *(tick.x for tick in scale.ticks())])
    assert all(later - earlier >= LABEL - 1e-6 for earlier, later in pairwise(places))
    assert bool(breaks) == scale.squeezed, "the longest stretch always says how long it is"
