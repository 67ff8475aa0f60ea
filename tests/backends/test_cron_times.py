"""The times of crons, over nights on which a clock is set, and after times without a worker."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends import MemoryBackend
from durably.backends.cron_times import AT_ONCE, due_times, last_time, times_after
from durably.core import Context, DefinitionError, function
from durably.core.flow import Cron

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kolkata"]

NIGHTS = [("Europe/Berlin", date(2026, 3, 29)), ("Europe/Berlin", date(2026, 10, 25))] + [
    ("America/New_York", day) for day in (date(2026, 3, 8), date(2026, 11, 1))
]


def local(cron: Cron, moment: float) -> datetime:
    return datetime.fromtimestamp(moment, ZoneInfo(cron.timezone))


def midnight(day: date, zone: str) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp()


@given(zone=st.sampled_from(ZONES), hour=st.integers(0, 23), minute=st.integers(0, 59), start=st.integers(0, 363))
@settings(deadline=None)
def test_a_fixed_time_comes_once_a_day_in_every_zone(zone: str, hour: int, minute: int, start: int) -> None:
    cron = Cron(f"{minute} {hour} * * *", timezone=zone)
    first = date(2026, 1, 1) + timedelta(days=start)
    moments = list(islice(times_after(cron, midnight(first, zone) - 1), 12))
    assert [local(cron, moment).date() for moment in moments] == [first + timedelta(days=n) for n in range(12)]
    for moment in moments:
        found = local(cron, moment)
        asked = found.replace(hour=hour, minute=minute, fold=0)
        exists = datetime.fromtimestamp(asked.timestamp(), UTC).astimezone(found.tzinfo).replace(fold=0) == asked
        if exists:
            assert (found.hour, found.minute) == (hour, minute)
        else:  # the first minute after the gap: the one before it has another offset
            before = datetime.fromtimestamp(moment - 60, ZoneInfo(zone))
            assert before.utcoffset() != found.utcoffset()


@pytest.mark.parametrize(
    ("zone", "day", "schedule", "expected"),
    [
        ("Europe/Berlin", date(2026, 3, 29), "30 2 * * *", ["03:00+0200"]),
        ("Europe/Berlin", date(2026, 10, 25), "30 2 * * *", ["02:30+0200"]),
        (
            "Europe/Berlin",
            date(2026, 3, 29),
            "0,30 1-3 * * *",
            ["01:00+0100", "01:30+0100", "03:00+0200", "03:30+0200"],
        ),
        ("America/New_York", date(2026, 3, 8), "15 2 * * *", ["03:00-0400"]),
        ("America/New_York", date(2026, 11, 1), "15 1 * * *", ["01:15-0400"]),
    ],
)
def test_nights_on_which_a_clock_is_set(zone: str, day: date, schedule: str, expected: list[str]) -> None:
    cron = Cron(schedule, timezone=zone)
    moments = times_after(cron, midnight(day, zone) - 1)
    found = [
        f"{local(cron, each):%H:%M%z}" for each in takewhile(lambda each: local(cron, each).date() == day, moments)
    ]
    assert found == expected


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
def test_a_schedule_for_every_hour_follows_the_hours_as_they_pass(zone: str, day: date) -> None:
    cron = Cron("20 * * * *", timezone=zone)
    moments = list(islice(times_after(cron, midnight(day, zone) - 1), 30))
    assert {later - earlier for earlier, later in pairwise(moments)} == {3600.0}


SCHEDULES = st.sampled_from(["* * * * *", "*/7 * * * *", "0 */3 * * *", "30 2 * * *", "15 1,2,3 * * 0", "0 0 29 2 *"])


@given(schedule=SCHEDULES, zone=st.sampled_from(ZONES), start=st.integers(1_750_000_000, 1_800_000_000))
@settings(deadline=None, max_examples=60)
def test_each_time_follows_from_the_one_before(schedule: str, zone: str, start: int) -> None:
    cron = Cron(schedule, timezone=zone)
    together = list(islice(times_after(cron, start), 8))
    one_by_one = [next(times_after(cron, start))]
    while len(one_by_one) < 8:  # as a journal does it, which keeps the last time alone
        one_by_one.append(next(times_after(cron, one_by_one[-1])))
    assert one_by_one == together
    assert all(earlier < later for earlier, later in pairwise(together))


@given(schedule=SCHEDULES, gone=st.integers(0, 40 * 86400), start=st.integers(1_750_000_000, 1_800_000_000))
@settings(deadline=None, max_examples=60)
def test_what_was_missed(schedule: str, gone: int, start: int) -> None:
    due = next(times_after(Cron(schedule), start))
    now = due + gone
    missed = [due, *takewhile(lambda each: each <= now, times_after(Cron(schedule), due))]
    assert last_time(Cron(schedule), due, now) == missed[-1]
    assert due_times(Cron(schedule, missed="once"), due, now) == missed[-1:]
    assert due_times(Cron(schedule, missed="each"), due, now) == missed[: AT_ONCE + 1]


@pytest.mark.parametrize("schedule", ["61 * * * *", "* * * * mon-funday", "0 0 31 2 *", "a b c d e"])
def test_what_is_no_schedule_is_refused_when_the_backend_is_made(schedule: str) -> None:
    @function("ticking", cron=schedule)
    async def ticking(ctx: Context[None]) -> None: ...

    with pytest.raises(DefinitionError, match=r"function 'ticking', cron: .* is not a schedule: "):
        MemoryBackend([ticking])
