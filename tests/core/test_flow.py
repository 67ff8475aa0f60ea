"""Flow control where it is written: durations, crons, keys, and what is said of a mistake."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, NamedTuple, NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypedDict

from durably.core import Agent, Context, DefinitionError, Event, Function, Singleton, function
from durably.core.errors import MissingKeyError
from durably.core.flow import Batch, Concurrency, Cron, CronTick, Debounce, Priority, RateLimit, Throttle
from durably.core.input_paths import check_path, key_value, number_at
from durably.testing import ScriptedModel


async def anything(ctx: Context[Any]) -> None: ...


def made(**options: Any) -> Function[Any, Any]:
    return function("made", **options)(anything)


@given(st.floats(0.001, 1e6))
def test_one_rule_for_periods(seconds: float) -> None:
    span = timedelta(seconds=seconds)
    assert Debounce(period=seconds) == Debounce(period=span)
    assert Throttle(limit=1, period=seconds).period == span
    assert RateLimit(limit=1, period=f"{seconds:f}s").period == timedelta(seconds=float(f"{seconds:f}"))
    assert Batch(max_size=1, timeout=seconds).timeout == span


def test_a_period_is_a_duration() -> None:
    assert Debounce(period="1m30s", timeout=600).period == timedelta(seconds=90)
    for wrong in (0, -1, float("nan"), True, "10", None, 1e12):
        with pytest.raises(DefinitionError, match="Debounce: period"):
            Debounce(period=wrong)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="write seconds, a timedelta, or a text with units such as '1h30m'"):
        Batch(max_size=2, timeout="soon")


@pytest.mark.parametrize("rule", [Concurrency, Debounce, Throttle, RateLimit, Batch], ids=lambda rule: rule.__name__)
def test_a_value_without_a_name_is_told_how_to_write_it(rule: Any) -> None:
    with pytest.raises(
        DefinitionError, match=rf"{rule.__name__}\(5\): write each value with its name: {rule.__name__}\("
    ):
        rule(5)


def test_rules_can_be_copied_and_pickled() -> None:
    for rule in (Debounce(period=3), Throttle(limit=1, period=2), Cron("0 9 * * *", "Europe/Berlin")):
        assert copy.copy(rule) == copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule)) == rule


def test_a_cron_is_checked_and_has_a_zone() -> None:
    assert made(cron="0 9 * * *").cron == Cron("0 9 * * *", timezone="UTC", missed="once")
    assert made(cron="TZ=Europe/Berlin 0 9 * * *").cron == Cron("0 9 * * *", timezone="Europe/Berlin")
    with pytest.raises(DefinitionError, match="is not a schedule of five fields, such as '0 9 "):
        made(cron="every day")
    with pytest.raises(DefinitionError, match="there is no time zone 'Mars/Base'"):
        Cron("0 9 * * *", timezone="Mars/Base")
    with pytest.raises(DefinitionError, match=r"there is no time zone .\.\./etc/passwd."):
        made(cron="TZ=../etc/passwd 0 9 * * *")
    with pytest.raises(DefinitionError, match="use 'once' or 'each'"):
        Cron("0 9 * * *", missed="never")  # type: ignore[arg-type]


def test_a_cron_needs_an_input_that_takes_a_tick_or_nothing() -> None:
    assert made(cron="0 9 * * *").takes_tick
    assert made(cron="0 9 * * *", input_type=CronTick).takes_tick
    assert not made(cron="0 9 * * *", input_type=type(None)).takes_tick
    assert not made(cron="0 9 * * *", input_type=int | None).takes_tick
    with pytest.raises(DefinitionError, match=r"a cron gives it a CronTick, or None: write 'ctx: Context\[CronTick\]'"):
        made(cron="0 9 * * *", input_type=int)


class User(BaseModel):
    id: int
    name: str = Field(alias="userName", default="")


class Order(TypedDict):
    user: User
    note: NotRequired[str]


@dataclass
class Basket:
    orders: dict[str, Order]
    owner: User | None = None


class Wrapped(RootModel[Basket]): ...


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("path", "tp"),
    [
        ("id", User),
        ("userName", User),
        ("name", User),
        ("data.id", User),
        ("user.id", Order),
        ("note", Order),
        ("orders.anything.user.id", Basket),
        ("owner.id", Basket),
        ("owner.id", Wrapped),
        ("owner.id", Annotated[Basket | None, "which"]),
        ("any.thing", Any),
        ("any.thing", dict[str, Any]),
        ("any", dict[str, int]),
        ("id", str | User),
    ],
)
def test_a_path_that_leads_somewhere_is_taken(path: str, tp: object) -> None:
    check_path(path, tp, "here")


@pytest.mark.parametrize(
    ("path", "tp", "there"),
    [
        ("ID", User, "id, name, userName"),
        ("user.idd", Order, "id, name, userName"),
        ("orders.a.usr", Basket, "note, user"),
        ("owner.id.x", Wrapped, "nothing with a name"),
        ("any.thing", dict[str, int], "nothing with a name"),
        ("id", list[User], "nothing with a name"),
        ("left", Pair, "nothing with a name"),
        ("id", str, "nothing with a name"),
        ("id.x", str | User, "nothing with a name"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, tp: object, there: str) -> None:
    with pytest.raises(DefinitionError, match=rf"here: the input has no .* there is {there}$"):
        check_path(path, tp, "here")


@pytest.mark.parametrize(
    "options",
    [
        {"singleton": Singleton("usr")},
        {"concurrency": Concurrency(limit=1, key="usr")},
        {"concurrency": [Concurrency(limit=1), Concurrency(limit=1, key="usr")]},
        {"debounce": Debounce(period=1, key="usr")},
        {"throttle": Throttle(limit=1, period=1, key="usr")},
        {"rate_limit": RateLimit(limit=1, period=1, key="usr")},
        {"idempotency": "usr"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_option_with_a_key_is_checked(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"function 'made', {next(iter(options))}: the input has no 'usr'"):
        made(input_type=Order, **options)


def test_the_key_of_a_batch_is_that_of_an_event() -> None:
    made(input_type=list[Order], batch=Batch(max_size=2, timeout=1, key="user.id"))
    with pytest.raises(DefinitionError, match="function 'made', batch: the input has no 'usr'"):
        made(input_type=list[Order], batch=Batch(max_size=2, timeout=1, key="usr"))
    with pytest.raises(DefinitionError, match="a batch has no single value at the key of singleton"):
        made(input_type=list[Order], batch=Batch(max_size=2, timeout=1), singleton=Singleton("user"))
    with pytest.raises(DefinitionError, match=r"batch= does not go together with debounce="):
        made(batch=Batch(max_size=2, timeout=1), debounce=Debounce(period=1))


def test_an_agents_key_is_one_of_its_input() -> None:
    model = ScriptedModel("done")
    Agent("chat", model=model, instructions="", singleton=Singleton("session_key"))
    with pytest.raises(DefinitionError, match="the input has no 'sessionkey'"):
        Agent("chat", model=model, instructions="", singleton=Singleton("sessionkey"))


def test_what_is_absent_or_null_is_no_key() -> None:
    event = Event("x", {"user": {"id": 7, "none": None}, "text": "abc", "list": [1]})
    assert key_value(event, "user.id", function="f", option="o") == "7"
    assert key_value(event, "user", function="f", option="o") == '{"id": 7, "none": null}'
    for path in ("usr", "user.none", "text.title", "list.count", "user.id.real"):
        with pytest.raises(MissingKeyError, match=f"nothing at '{path}'"):
            key_value(event, path, function="f", option="o")


def test_a_priority_is_a_number_or_the_path_of_one() -> None:
    event = Event("x", {"urgency": 5, "text": "5"})
    assert [number_at(event, path, function="f", option="priority") for path in ("30", "urgency", "absent")] == [
        30,
        5,
        0,
    ]
    with pytest.raises(MissingKeyError, match="start it with a number there"):
        number_at(event, "text", function="f", option="priority")
    assert made(priority=Priority("urgency")).flow_control == ("priority",)
