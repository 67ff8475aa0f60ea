"""What is taken for a name or an id, what is refused, and that engines agree on it."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.core import (
    Agent,
    AgentInput,
    Context,
    DefinitionError,
    Event,
    FunctionRef,
    JSONLSessions,
    MemorySessions,
    SerializationError,
    SessionStore,
    SQLiteSessions,
    create_agent_loop,
    function,
    user,
)
from durably.core.events import check_events
from durably.core.functions import check_triggers
from durably.core.ids import (
    check_event_id,
    check_event_name,
    check_function_id,
    check_run_id,
    check_session_key,
    check_step_id,
)
from durably.testing import ScriptedModel
from durably.testing.conformance import MemorySubject, Subject
from tests.testing.subjects import SQLiteSubject

CHECKS: list[Callable[[Any], None]] = [
    check_event_id,
    check_event_name,
    check_function_id,
    check_run_id,
    check_session_key,
    check_step_id,
]
BAD = ["", " ", " a", "a ", "a\n", "a\0b", "\x7f", "\ud83d", "\u2028", "\u200b", "x" * 201, "x" * 100_000]
GOOD = ["a", "two words", "größe", "注文", "😀" * 200, "x" * 200, "order.7", "../../etc", "'; --", '"', "{}", "%s"]

SURROGATES = st.text(st.characters(categories=None), max_size=20)
TEXTS = SURROGATES | st.text(max_size=210) | st.sampled_from([*BAD, *GOOD, "a/b", "a:b", "durably.events/x"])


@pytest.mark.parametrize("check", CHECKS)
def test_one_rule_for_all(check: Callable[[Any], None]) -> None:
    for good in GOOD:
        if not ("/" in good and check in (check_step_id, check_function_id)):
            check(good)
    for bad in BAD:
        with pytest.raises(ValueError, match=r"is not an? .*: use 1 to 200 printable characters"):
            check(bad)
    for other in (None, 7, b"a", ["a"]):
        with pytest.raises(TypeError, match=r"is a text, such as"):
            check(other)


def test_where_ids_differ() -> None:
    for strict in (check_step_id, check_function_id):
        for bad in ("a/b", "a:b"):
            with pytest.raises(ValueError, match="without '/' and without ':'"):
                strict(bad)
    for check in (check_event_id, check_event_name, check_run_id, check_session_key):
        check("shop/order:7")
    with pytest.raises(ValueError, match=r"durably itself uses ids that begin with 'durably\.'"):
        check_run_id("durably.events/queue/name")


@pytest.mark.parametrize("bad", [*BAD, 7])
def test_each_is_refused_where_it_is_written(bad: Any) -> None:
    with pytest.raises(DefinitionError, match="is not a function id|a function id is a text"):  # noqa: RUF043
        FunctionRef(bad)
    with pytest.raises(DefinitionError, match="function 'f', triggers: .* event name"):  # noqa: RUF043
        check_triggers("f", ["order/paid", bad])
    for fields in ({"name": bad}, {"name": "order/paid", "id": bad}):
        with pytest.raises((TypeError, ValueError), match=r"an event (name|id)") as caught:
            Event(**fields)
        assert caught.type in (TypeError, ValueError)
    with pytest.raises(ValueError, match=r"session key|valid string"):
        AgentInput(message="hi", session_key=bad)


@pytest.mark.parametrize("bad", BAD)
def test_an_agent_refuses_a_session_key_before_its_run_begins(bad: str) -> None:
    agent = Agent("clerk", model=ScriptedModel("hello"), instructions="Greet.", sessions=MemorySessions())

    async def start() -> None:
        async with MemorySubject().open([agent]) as backend:
            with pytest.raises(SerializationError, match=r"session_key: .* is not a session key"):
                await backend.start("clerk", {"message": "hi", "session_key": bad})
            assert await backend.runs() == []

    asyncio.run(start())


class _Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")


POISON = [object(), _Odd(), float("nan"), {"a": [float("-inf")]}, b"\xff", "\ud83d", {1, object()}]


@pytest.mark.parametrize("data", POISON)
def test_event_data_that_cannot_be_sent_is_refused_by_name(data: Any) -> None:
    with pytest.raises(SerializationError, match=r"^step 'tell': the data of event 'order/paid' cannot be sent: "):
        check_events([Event("order/paid"), Event("order/paid", data)], str, step="tell")


def test_event_data_too_deep_to_be_read_back_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(SerializationError, match="the data of event 'order/paid'"):
        check_events([Event("order/paid", deep)], str)


def test_what_is_sent_is_an_event() -> None:
    with pytest.raises(TypeError, match="what is sent is an event"):
        check_events(["order/paid"], str)  # type: ignore[list-item]
    for update in ({"name": ""}, {"id": "a\0"}, {"ts": float("inf")}):
        with pytest.raises(ValueError, match="event"):
            check_events([Event("order/paid").model_copy(update=update)], str)


def test_an_event_that_was_recorded_is_read_whatever_its_name() -> None:
    """Those of earlier versions, and of other programs on Inngest, keep the rules of their time."""
    assert Event.model_validate_json('{"name":" a","id":"","ts":-1}') == Event.model_validate(
        {"name": " a", "id": "", "ts": -1.0}
    )


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_memory_and_sqlite_take_and_refuse_the_same(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        said = [asyncio.run(_try(subject, text)) for subject in (MemorySubject(), SQLiteSubject(Path(directory)))]
    assert said[0] == said[1]
    assert all(
        re.match(r"taken$|ValueError: .* is not an? (run id|step id|event name|event id): ", each) for each in said[0]
    )


async def _try(subject: Subject, text: str) -> list[str]:
    """What each place that takes a name or an id says of a text."""

    async def body() -> str:
        return text.encode("utf-8", "replace").decode()

    @function("tries", retries=0)
    async def tries(ctx: Context[None]) -> list[str]:
        step = ctx.step
        return [
            await _said(lambda: step.run(text, body)),
            await _said(lambda: step.wait_for_event("wait", text, timeout=1)),
            await _said(lambda: step.send_event("tell", Event(text, id="1"))),
            await _said(lambda: step.send_event("tell", Event("told", id=text))),
        ]

    async with subject.open([tries]) as backend:
        started = await _said(lambda: backend.start(tries, run_id=text))
        run = await (backend.run(text) if started == "taken" else backend.start(tries))
        return [started, *await run.result()]


async def _said(call: Callable[[], Awaitable[Any]]) -> str:
    try:
        await call()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


@pytest.mark.parametrize("bad", ["", "a\x00b", "x" * 201, " a"])
@pytest.mark.parametrize("kind", ["memory", "jsonl", "sqlite"])
@pytest.mark.asyncio
async def test_a_session_store_holds_to_the_rule_itself(tmp_path: Path, kind: str, bad: str) -> None:
    made: dict[str, Callable[[], SessionStore]] = {
        "memory": MemorySessions,
        "jsonl": lambda: JSONLSessions(tmp_path / "sessions"),
        "sqlite": lambda: SQLiteSessions(tmp_path / "sessions.db"),
    }
    store = made[kind]()
    with pytest.raises(ValueError, match="is not a session key"):
        await store.append(bad, [user("hi")], key="k")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="is not a session key"):
        create_agent_loop(Agent("a", model=ScriptedModel("x"), instructions=""), "hi", session_key=bad)
