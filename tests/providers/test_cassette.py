"""Recorded answers: once for real, then from the file."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from durably.core import ModelError, user
from durably.core.model import Delta, ModelRequest
from durably.testing import ScriptedModel, call
from durably.testing.models.cassette import RecordedModel
from tests.providers.cases import ask, question

pytestmark = pytest.mark.asyncio

SECRET = "hunter2-hunter2"


async def recorded(path: Path, *requests: ModelRequest) -> ScriptedModel:
    real = ScriptedModel(lambda request: call("weather", city="X") if not request.turn else "Sunny.")
    model = RecordedModel(path, real)
    for request in requests:
        await model.complete(request)
    return real


async def test_recorded_once_and_replayed_offline(tmp_path: Path, streamed: bool) -> None:
    path = tmp_path / "tapes" / "weather.jsonl"
    first, second = question(user("Weather?")), question(user("Sure?"))
    real = await recorded(path, first, first, second)
    assert len(real.requests) == 2
    replay = RecordedModel(path)
    response, deltas = await ask(replay, first, streamed)
    assert response.message.tool_calls[0].arguments == {"city": "X"}
    assert not streamed or deltas == [Delta(kind="tool_call", text='{"city": "X"}')]
    assert replay.name == "recorded:weather"


async def test_a_request_that_has_drifted_is_shown(tmp_path: Path, streamed: bool) -> None:
    path = tmp_path / "weather.jsonl"
    await recorded(path, question(user("Weather in Berlin?")), question(user("Something else")))
    replay = RecordedModel(path, ScriptedModel("never"))
    with pytest.raises(ModelError) as raised:
        await ask(replay, question(user("Weather in Bonn?")), streamed)
    assert '-      "content": "Weather in Berlin?"' in str(raised.value)
    assert '+      "content": "Weather in Bonn?"' in str(raised.value)
    assert not raised.value.retriable


async def test_new_requests_can_be_added(tmp_path: Path, streamed: bool) -> None:
    path = tmp_path / "weather.jsonl"
    await recorded(path, question(user("one")))
    more = RecordedModel(path, ScriptedModel("Two."), record="new")
    response, _ = await ask(more, question(user("two")), streamed)
    assert response.message.text == "Two."
    again, _ = await ask(RecordedModel(path), question(user("two")), streamed)
    assert again == response
    with pytest.raises(ModelError, match="holds no requests"):
        await ask(
            RecordedModel(tmp_path / "none.jsonl", ScriptedModel("x"), record="never"), question(user("?")), streamed
        )


async def test_secrets_are_scrubbed_on_the_way_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "from-the-environment")
    path = tmp_path / "tape.jsonl"
    words = f"keys: {SECRET} from-the-environment sk-ant-{'a1' * 12} Bearer abcdefgh12345678"
    model = RecordedModel(path, ScriptedModel(f"You said {words}"), secrets=[SECRET])
    response = await model.complete(question(user(words)))
    written = path.read_text()
    for secret in (SECRET, "from-the-environment", "sk-ant", "abcdefgh12345678"):
        assert secret not in written
        assert secret not in response.message.text
    assert (await RecordedModel(path, secrets=[SECRET]).complete(question(user(words)))) == response


async def test_two_recorders_may_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    long = "x" * 200_000  # a line that no single buffer holds
    asked = [question(user(f"{place} {long}")) for place in range(8)]

    def record(name: str) -> None:
        model = RecordedModel(path, ScriptedModel(lambda request: f"{name} {long}"), record="new")
        for request in asked if name == "one" else reversed(asked):
            asyncio.run(model.complete(request))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, ["one", "two"]))
    assert len([json.loads(line) for line in path.read_text().splitlines()]) >= len(asked), "no line is torn"
    replay = RecordedModel(path)
    for request in asked:
        response = await replay.complete(request)
        assert response.message.text in (f"one {long}", f"two {long}")


async def test_what_was_recorded_first_is_what_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    one, two = (RecordedModel(path, ScriptedModel(name)) for name in ("one", "two"))  # both see no file yet
    first = await one.complete(question(user("?")))
    await two.complete(question(user("?")))
    assert await RecordedModel(path).complete(question(user("?"))) == first


async def test_one_request_at_the_same_time_has_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    names = iter(["one", "two"])
    model = RecordedModel(path, ScriptedModel(lambda request: next(names)))
    one, two = await asyncio.gather(*(model.complete(question(user("?"))) for _ in range(2)))
    assert one == two == await RecordedModel(path).complete(question(user("?")))
    assert len(path.read_text().splitlines()) == 1
