"""What a worker remembers of runs: bounded, and never more than the newest request says."""

from __future__ import annotations

from typing import Any, cast

from durably.backends.inngest.records import encode_record
from durably.backends.inngest.run_cache import RunCache
from durably.backends.inngest.sdk import Request
from durably.core.history import StepRecord


class SettledRequest:
    """A request in which these steps have ended, each named by its record's key."""

    def __init__(self, *keys: str) -> None:
        self.settled = list(keys)
        self.read: list[str] = []

    def outputs(self, start: int) -> Any:
        for key in self.settled[start:]:
            self.read.append(key)
            yield None if key == "native" else encode_record(StepRecord("r", 0, key, "step", "completed", output="1"))


def read(cache: RunCache, request: SettledRequest) -> tuple[int, list[str]]:
    run = cache.run("r", "inngest-r")
    known = run.read("r", cast(Request, request))
    assert [record.seq for record in run.records] == list(range(len(run.records)))
    return known, [record.key for record in run.records]


def test_only_what_is_new_is_decoded() -> None:
    cache = RunCache()
    assert read(cache, SettledRequest("a")) == (0, ["a"])
    later = SettledRequest("a", "native", "b")
    assert read(cache, later) == (1, ["a", "b"])
    assert later.read == ["native", "b"]
    assert cache.settled("inngest-r") == ["a", "native", "b"]
    assert cache.inngest_ids == {"r": "inngest-r"}


def test_of_a_run_that_is_new_here_the_last_record_counts_as_new() -> None:
    assert read(RunCache(), SettledRequest("a", "b", "c")) == (2, ["a", "b", "c"])


def test_an_older_state_or_another_order_is_read_anew() -> None:
    cache = RunCache()
    read(cache, SettledRequest("a", "b"))
    assert read(cache, SettledRequest("a"))[1] == ["a"]
    assert read(cache, SettledRequest("b", "a"))[1] == ["b", "a"]


def test_the_oldest_run_is_forgotten() -> None:
    cache = RunCache()
    for number in range(101):
        run = cache.run(f"r{number}", f"inngest-{number}")
        run.read(f"r{number}", cast(Request, SettledRequest("a")))
    assert cache.settled("inngest-0") == []
    assert cache.settled("inngest-1") == ["a"]
    assert cache.inngest_ids["r0"] == "inngest-0", "ids are small, and remembered longer"
