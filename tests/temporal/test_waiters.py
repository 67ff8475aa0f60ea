"""Those who wait in one hub, beside a list of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durably.backends.temporal.waiters import Waiters, pack_waiters, unpack_waiters
from durably.core.ids import derive_id

NAMES = st.sampled_from(["a", "b", "c"])
ADD = st.tuples(st.just("add"), NAMES, NAMES, NAMES, st.integers(0, 3))
DROP = st.tuples(st.just("drop"), NAMES, NAMES)
TAKE = st.tuples(st.just("take"), st.lists(NAMES, unique=True, max_size=2), st.none() | st.integers(0, 4))


@given(st.lists(ADD | DROP | TAKE, max_size=30))
def test_each_waits_once_and_is_found_by_what_it_waits_for(asked: list[tuple[Any, ...]]) -> None:
    waiters, listed = Waiters(), list[dict[str, Any]]()
    for what, *args in asked:
        if what == "add":
            run, key, value, since = args
            waiter = {"run": run, "key": key, "value": value, "since": since}
            waiters.add(waiter)
            listed = [*(each for each in listed if (each["run"], each["key"]) != (run, key)), waiter]
        elif what == "drop":
            waiters.drop(*args)
            listed = [each for each in listed if [each["run"], each["key"]] != args]
        else:
            values, before = args
            taken = waiters.take(values, before)
            found = [each for each in listed if each["value"] in values and (before is None or each["since"] < before)]
            assert sorted(map(str, taken)) == sorted(map(str, found))
            listed = [each for each in listed if each not in found]
        assert [*waiters] == listed
        assert (len(waiters), waiters.size) == (len(listed), Waiters(listed).size)
        assert (waiters.size > 0) is bool(listed)


WAITER = st.fixed_dictionaries({"run": st.text(), "key": st.text(), "value": st.text(), "since": st.floats(0, 1e10)})


@given(st.lists(WAITER, max_size=5))
def test_those_who_wait_are_the_same_after_they_were_packed(waiting: list[dict[str, Any]]) -> None:
    assert unpack_waiters(pack_waiters(waiting)) == waiting


def test_packed_they_take_a_quarter() -> None:
    runs = [derive_id("run", str(n), "") for n in range(10)]
    waiting = [
        {"run": run, "key": f"gather[{n}]/ear", "value": derive_id("value", run, str(n)), "since": 1.5e9}
        for run in runs
        for n in range(100)
    ]
    assert len(pack_waiters(waiting)) * 4 < len(json.dumps(waiting))
