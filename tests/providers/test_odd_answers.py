"""An answer that has another form than its API documents: an answer or an error that says so, and nothing else."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.core import ModelError, user
from durably.core.model import ModelResponse
from durably.providers.chat_stream import StreamedAnswer
from durably.testing import call
from durably.testing.models.late import LateAnswers
from durably.testing.models.llm_server import LLMServer
from durably.testing.models.wire.http import HTTPRequest
from tests.providers.cases import Case, ask, close_litellm, question
from tests.providers.test_later import WAYS, Way
from tests.providers.test_wire_quirks import serving

ABSENT = object()
ODD: tuple[Any, ...] = (ABSENT, None, "", 0, -1, 1e308, 2**70, True, "x", [], {}, [None], [[]], {"type": "odd"})


class Address(LLMServer):
    """The address of another server, where a case asks for one."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    @property
    def url(self) -> str:
        return self._url


def places(value: object, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place in a JSON value."""
    yield place
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*place, key))


def changed(value: Any, place: Sequence[Any], new: object) -> Any:
    """The value with another one at a place, or without what stands there."""
    if not place:
        return {} if new is ABSENT else new
    made = copy.deepcopy(value)
    within = made
    for key in place[:-1]:
        within = within[key]
    if new is ABSENT:
        del within[place[-1]]
    else:
        within[place[-1]] = new
    return made


async def good_answer(case: Case, streamed: bool) -> str:
    """What a server of this format answers, as it stands on the wire."""
    async with LLMServer([call("weather", city="Rome"), call("weather", city="Oslo")]) as server:
        await ask(case.model(server), question(user("?")), streamed)
        request = server.received[0]
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        async with httpx.AsyncClient() as client:
            response = await client.post(server.url + request.path, content=request.body, headers=headers)
    return response.text


def odd_answer(text: str, streamed: bool, data: st.DataObject) -> str | Any:
    """The answer with something odd at one place."""
    if not streamed:
        whole = json.loads(text)
        return changed(whole, data.draw(st.sampled_from(list(places(whole)))), data.draw(st.sampled_from(ODD)))
    lines = text.split("\n")
    number = data.draw(st.sampled_from([n for n, line in enumerate(lines) if line.startswith("data: {")]))
    event = json.loads(lines[number].removeprefix("data: "))
    place = data.draw(st.sampled_from(list(places(event))))
    lines[number] = f"data: {json.dumps(changed(event, place, data.draw(st.sampled_from(ODD))))}"
    return "\n".join(lines)


@pytest.mark.timeout(120)
def test_it_is_read_or_refused(case: Case, streamed: bool) -> None:
    good = asyncio.run(good_answer(case, streamed))

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def read(data: st.DataObject) -> None:
        body = odd_answer(good, streamed, data)

        async def check() -> None:
            async with serving(body) as (url, _):
                model = case.model(Address(url), timeout=5.0)
                with suppress(ModelError):
                    response, _ = await ask(model, question(user("?")), streamed)
                    again = ModelResponse.model_validate_json(response.model_dump_json())
                    assert again == response, "what is recorded is what was said"
            await close_litellm()

        asyncio.run(check())

    read()


class OddLateAnswers:
    """Late answers, with something odd in one of them.

    Args:
        late: The late answers of a server.
        number: Which answer it is, counted from 0.
        place: Where, counted through its places again and again.
        new: What stands there.
    """

    def __init__(self, late: LateAnswers, number: int, place: int, new: object) -> None:
        self._late = late
        self._odd = number, place, new
        self._given = 0

    async def handle(self, request: HTTPRequest) -> str | None:
        text = await self._late.handle(request)
        number, place, new = self._odd
        self._given += text is not None
        if text is None or self._given != number + 1:
            return text
        whole = json.loads(text)
        found = list(places(whole))
        return json.dumps(changed(whole, found[place % len(found)], new))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_one_that_comes_later_is_read_or_refused(way: Way) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(number=st.integers(0, 3), place=st.integers(0, 99), new=st.sampled_from(ODD))
    def read(number: int, place: int, new: object) -> None:
        async def check() -> None:
            async with LLMServer("Done.", polls=0) as server:
                server._late = OddLateAnswers(server._late, number, place, new)  # type: ignore[assignment]
                model = way.make(server)
                with suppress(ModelError):
                    promised = await model.complete(question(user("?"), options=way.options))
                    if promised.submitted is not None:
                        response = await model.fetch(promised.submitted, question())
                        assert ModelResponse.model_validate_json(response.model_dump_json()) == response

        asyncio.run(check())

    read()


def chunk(**piece: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]}


@pytest.mark.parametrize(
    "numbers",
    [(0, 1), (1, 2), (3, 7), (0, 0), (None, None), (2**70, -1), ("a", "b")],
    ids=["usual", "from-one", "gaps", "all-zero", "none", "huge", "texts"],
)
def test_calls_are_told_apart_by_whatever_the_server_gives(numbers: tuple[object, object]) -> None:
    answer = StreamedAnswer()
    for number, (id, city) in zip(numbers, {"a": "Rome", "b": "Oslo"}.items(), strict=True):
        half = len(arguments := json.dumps({"city": city})) // 2
        for piece in (
            chunk(index=number, id=id, function={"name": "weather", "arguments": ""}),
            chunk(index=number, function={"arguments": arguments[:half]}),
            chunk(index=number, id=id, function={"arguments": arguments[half:]}),
        ):
            list(answer.take(piece))
    calls = answer.data["choices"][0]["message"]["tool_calls"]
    assert [(each["id"], each["function"]["name"], json.loads(each["function"]["arguments"])) for each in calls] == [
        ("a", "weather", {"city": "Rome"}),
        ("b", "weather", {"city": "Oslo"}),
    ]
