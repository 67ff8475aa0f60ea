"""What is taken for a duration or a moment, what is refused, and that engines agree on it."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.core import Context, DefinitionError, Event, RetryAfterError, RetryPolicy, delegate, function, tool
from durably.core.durations import LATEST, LONGEST, duration_seconds, moment
from durably.core.errors import ModelError
from durably.core.flow import Concurrency, Debounce
from durably.testing.conformance import MemorySubject, Subject
from tests.testing.subjects import SQLiteSubject

ZONED = st.datetimes(timezones=st.just(UTC) | st.timezones())
TEXTS = (
    st.text(max_size=20)
    | st.from_regex(r"\A\d{1,3} ?(s|min|hours?|d|weeks)( and \d{1,2}s)?\Z")
    | ZONED.map(datetime.isoformat)
)
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 4_000_000_000),
    st.floats(),
    st.floats(0, 1e9),
    st.timedeltas(),
    st.datetimes(),
    ZONED,
    TEXTS,
    st.sampled_from([10**400, 10**5000, 1e300, timedelta.max, timedelta.min, LATEST, LATEST + 1, LONGEST, b"1", []]),
)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        (timedelta(minutes=2), 120),
        ("90s", 90),
        ("1h30m", 5400),
        ("1 day, 12 hours", 129_600),
        (" 2 Weeks ", 1_209_600),
        (LONGEST, LONGEST),
    ],
)
def test_a_duration_in_each_of_its_forms(given: Any, seconds: float) -> None:
    assert duration_seconds(given, "it") == seconds


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        (LATEST, LATEST),
        (datetime(2030, 1, 1, tzinfo=UTC), 1_893_456_000),
        ("2030-01-01T00:00:00Z", 1_893_456_000),
        ("2030-01-01 02:00:00+02:00", 1_893_456_000),
    ],
)
def test_a_moment_in_each_of_its_forms(given: Any, seconds: float) -> None:
    assert moment(given, "it") == seconds
    assert Event("e", ts=given).ts == seconds


@pytest.mark.parametrize(
    ("given", "kind", "advice"),
    [
        (float("inf"), ValueError, "at most ten years"),
        (float("nan"), ValueError, "0 seconds or more"),
        (-1, ValueError, "0 seconds or more"),
        (LONGEST + 1, ValueError, "not milliseconds"),
        (timedelta.max, ValueError, "leave a timeout out"),
        ("1", ValueError, "a text with units such as '1h30m'"),
        ("1h" * 1000, ValueError, "cannot be read"),
        ("9" * 90 + "s", ValueError, "at most ten years"),
        (True, TypeError, "write seconds, a timedelta"),
        (None, TypeError, "write seconds, a timedelta"),
    ],
)
def test_what_is_no_duration_is_refused_with_what_to_write(given: Any, kind: type[Exception], advice: str) -> None:
    with pytest.raises(kind, match=f"^step 'nap': the duration .*{re.escape(advice)}"):
        duration_seconds(given, "step 'nap': the duration")


@pytest.mark.parametrize(
    ("given", "kind", "advice"),
    [
        (float("inf"), ValueError, "after the year 9999"),
        (float("nan"), ValueError, "a time after 1970"),
        (1_900_000_000_000, ValueError, "in seconds, not milliseconds"),
        (-1, ValueError, "a time after 1970"),
        (datetime(2030, 1, 1), ValueError, "no time zone"),  # noqa: DTZ001  # what is refused
        ("2030-01-01", ValueError, "no time zone"),
        ("1h", ValueError, "cannot be read"),
        (True, TypeError, "is not a time"),
        ([], TypeError, "is not a time"),
    ],
)
def test_what_is_no_moment_is_refused_with_what_to_write(given: Any, kind: type[Exception], advice: str) -> None:
    with pytest.raises(kind, match=f"^ts of event 'order/paid' .*{re.escape(advice)}"):
        Event("order/paid", ts=given)


@given(ANYTHING)
def test_anything_is_a_time_or_one_of_two_errors(value: Any) -> None:
    assert _within(lambda: duration_seconds(value, "it"), LONGEST)
    assert _within(lambda: moment(value, "it"), LATEST)


@given(ANYTHING)
def test_any_delay_is_kept_or_refused(value: Any) -> None:
    assert _within(lambda: RetryAfterError("busy", delay=value).delay, LONGEST)
    with suppress(DefinitionError):
        policy = RetryPolicy(initial=value, maximum=value)
        assert 0 <= policy.delay(1, "") <= LONGEST
        assert 0 <= policy.delay(10**6, "") <= LONGEST


@given(st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=3))
def test_any_factor_and_jitter_give_delays_or_are_refused(value: Any) -> None:
    for options in ({"factor": value}, {"jitter": value}, {"factor": value, "initial": LONGEST, "maximum": LONGEST}):
        with suppress(DefinitionError):
            assert 0 <= RetryPolicy(**options).delay(2000, "seed") <= LONGEST


@pytest.mark.parametrize("said", [float("inf"), 1e300, float("nan"), -1.0, 3.0])
def test_what_a_provider_says_of_the_delay_is_kept_within_bounds(said: float) -> None:
    error = ModelError("busy", provider="p", model="m", retriable=True, retry_after=said)
    assert 0 <= RetryPolicy().next_delay(error, 1, "") <= LONGEST


def test_a_retry_policy_takes_durations_in_each_form() -> None:
    policy = RetryPolicy(initial="2s", maximum=timedelta(minutes=1), jitter=0)
    assert [policy.delay(n, "") for n in (1, 2, 3, 99)] == [2, 4, 8, 60]


@pytest.mark.parametrize("bad", [float("nan"), -1, True, "soon", timedelta.max])
def test_options_with_a_wrong_time_are_refused_where_they_are_written(bad: Any) -> None:
    async def act() -> None:
        """Act."""

    for define in (
        lambda: tool(timeout=bad)(act),
        lambda: tool(requires_approval=True, approval_timeout=bad)(act),
        lambda: delegate("other", max_depth=1, timeout=bad),
        lambda: RetryPolicy(initial=bad),
        lambda: RetryPolicy(maximum=bad),
        lambda: Debounce(period=bad),
        lambda: Debounce(period=timedelta(seconds=1), timeout=bad),
    ):
        with pytest.raises(DefinitionError):
            define()
    with pytest.raises(DefinitionError, match="limit must be a whole number"):
        Concurrency(limit=True)


@settings(deadline=None, max_examples=60)
@given(ANYTHING)
def test_memory_and_sqlite_take_and_refuse_the_same(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        said = [asyncio.run(_try(subject, value)) for subject in (MemorySubject(), SQLiteSubject(Path(directory)))]
    assert said[0] == said[1]
    assert len(said[0]) == 4


async def _try(subject: Subject, value: Any) -> list[str]:
    """What the steps that take a time say of a value, each in a run of its own."""

    @function("tries", retries=0)
    async def tries(ctx: Context[str]) -> str:
        step = ctx.step
        match ctx.input:
            case "sleep":
                await step.sleep("rest", value)
            case "until":
                await step.sleep_until("rest", value)
            case "wait":
                assert await step.wait_for_event("rest", "times/never", timeout=value) is None
            case _:
                await step.send_event("rest", Event("times/told", ts=value))
        return "taken"

    said = []
    async with subject.open([tries]) as backend:
        for number, kind in enumerate(["sleep", "until", "send", *(["wait"] if value is not None else [])]):
            run = await backend.start(tries, kind, run_id=f"try-{number}")
            await run.ended()
            error = run.view.error
            said.append("taken" if error is None else f"{error['type']}: {error['message']}")
            assert error is None or error["type"] in ("TypeError", "ValueError"), error
    return said if value is not None else [*said, "waits for ever"]


def _within(call: Callable[[], float], last: float) -> bool:
    """Whether a number came that is in bounds, or one of the two errors."""
    try:
        return 0 <= call() <= last
    except (TypeError, ValueError) as error:
        return type(error) in (TypeError, ValueError)
