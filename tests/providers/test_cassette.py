"""Recorded answers: once for real, then from the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.core import Delta, ModelError, ModelRequest, user
from durably.testing import ScriptedModel, call
from durably.testing.cassette import RecordedModel
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
