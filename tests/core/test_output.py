"""The typed answer: what is read as one, what the model is told of a wrong one, and how often."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from durably.backends import MemoryBackend
from durably.core import Agent, AgentResult, DefinitionError, ToolError
from durably.core.messages import AssistantMessage, TextPart
from durably.core.model import ModelResponse
from durably.core.output import OutputForm
from durably.core.serialization import codec_for
from durably.testing import ScriptedModel, crash_matrix


class Price(BaseModel):
    euros: float = Field(ge=0)
    item: str = ""


def parts(*texts: str) -> AssistantMessage:
    return AssistantMessage(parts=[TextPart(text=text) for text in texts])


@pytest.mark.parametrize(
    "message",
    [
        parts('{"euros": 5}'),
        parts("Let me think about it.", '{"euros": 5}'),
        parts('{"euros": 5}', "I hope that helps."),
        parts('Here it is:\n```json\n{"euros": 5}\n```\nAnything else?'),
        parts('Not this one:\n```\n{"dollars": 5}\n```\nbut\n```json\n{"euros": 5}\n```'),
        parts("Here:", '```\n{"euros": 5}\n```'),
        parts('  {"euros": 5}\n'),
    ],
)
def test_what_stands_around_an_answer_does_no_harm(message: AssistantMessage) -> None:
    assert OutputForm(codec_for(Price)).read(message) == (Price(euros=5), None)


def test_fences_within_an_answer_are_a_part_of_it() -> None:
    text = json.dumps({"euros": 5, "item": '```json\n{"euros": 6}\n```'})
    output, _ = OutputForm(codec_for(Price)).read(parts(text))
    assert output == Price(euros=5, item='```json\n{"euros": 6}\n```')


def test_the_complaint_is_the_error_and_the_schema() -> None:
    form = OutputForm(codec_for(Price))
    output, complaint = form.read(parts('Here:\n```json\n{"euros": -5, "item": 7}\n```'))
    assert output is None
    assert complaint is not None
    assert "euros: Input should be greater than or equal to 0; item: Input should be a valid string" in complaint
    assert complaint.endswith(json.dumps(form.schema))
    assert "Invalid JSON" in str(form.read(parts("five"))[1])


ROOTS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (str, st.text()),
    (list[int], st.lists(st.integers())),
    (dict[str, int], st.dictionaries(st.text(), st.integers())),
    (int | str | None, st.none() | st.integers() | st.text()),
    (Literal["yes", "no"], st.sampled_from(["yes", "no"])),
    (list[Price] | Price, st.builds(Price, euros=st.floats(0, 1e6), item=st.text())),
    (Any, st.recursive(st.none() | st.integers() | st.text(), st.lists)),
]


@pytest.mark.parametrize(("root", "values"), ROOTS, ids=lambda each: str(each)[:20])
def test_any_type_may_be_the_root(root: Any, values: st.SearchStrategy[Any]) -> None:
    form = OutputForm(codec_for(root))
    assert form.schema["type"] == "object", "providers want an object"

    @settings(deadline=None)
    @given(values)
    def check(value: Any) -> None:
        data = TypeAdapter(root).dump_python(value, mode="json")
        wrapped = data if root == dict[str, int] else {"answer": data}
        for answer in (data, wrapped):
            assert form.read(parts(json.dumps(answer))) == (value, None)

    check()


def test_a_recursive_root_keeps_its_definitions() -> None:
    class Node(BaseModel):
        children: list[Node] = []

    Node.model_rebuild(_types_namespace={"Node": Node})
    schema = OutputForm(codec_for(Node)).schema
    assert schema["properties"]["answer"] == {"$ref": "#/$defs/Node"}
    assert "Node" in schema["$defs"]


def agent_of(*answers: Any, **options: Any) -> tuple[Agent, ScriptedModel]:
    model = ScriptedModel(*answers)
    return Agent("a", model=model, instructions="", retries=0, **options), model


@pytest.mark.asyncio
async def test_the_answers_that_do_not_fit_have_a_limit_of_their_own() -> None:
    agent, model = agent_of(lambda request: "five", output_type=Price, output_retries=2, max_iterations=9)
    async with MemoryBackend([agent]) as backend:
        result = await backend.invoke(agent, "How much?")
    assert (result.stop_reason, result.iterations, result.output) == ("invalid_output", 3, None)
    assert result.text == "five"
    assert "Your answer was not taken" in str(model.requests[1].messages[-1])


@pytest.mark.asyncio
async def test_a_validator_of_ones_own_may_refuse() -> None:
    asked: list[Price] = []

    async def validate(price: Price) -> None:
        asked.append(price)
        if price.euros > 100:
            raise ValueError("nothing here costs more than 100")

    agent, model = agent_of('{"euros": 500}', '{"euros": 5}', output_type=Price, output_validator=validate)
    async with MemoryBackend([agent], evict="always") as backend:
        run = await backend.start(agent, "How much?")
        result = await run.result()
        keys = [record.key for record in (await run.history()).steps()]
    assert result.output == Price(euros=5)
    assert asked == [Price(euros=500), Price(euros=5)], "each answer is checked once"
    assert "nothing here costs more than 100" in str(model.requests[1].messages[-1])
    assert keys[2:] == ["think", "check-output", "think:1", "check-output:1"]


@pytest.mark.parametrize("error", [ToolError("no"), AssertionError("no")])
@pytest.mark.asyncio
async def test_what_a_validator_raises_is_told(error: Exception) -> None:
    def validate(count: int) -> None:
        if count == 1:
            raise error

    agent, model = agent_of("1", "2", output_type=int, output_validator=validate)
    async with MemoryBackend([agent]) as backend:
        assert (await backend.invoke(agent, "How many?")).output == 2
    assert "not taken: no." in str(model.requests[1].messages[-1])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"output_validator": print}, "add output_type="),
        ({"output_type": int, "output_retries": -1}, "output_retries is a number of further answers"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        agent_of("1", **options)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_checked_answer_is_the_same_wherever_the_run_crashes(backend: str) -> None:
    def validate(numbers: list[int]) -> None:
        if not numbers:
            raise ValueError("none")

    agent, _ = agent_of("[]", "[1, 2]", output_type=list[int], output_validator=validate)
    report = await crash_matrix(agent, "Which?", backend=backend)
    assert report.ok, report
    assert "check-output:1" in [step.key for step in report.steps]


def test_an_answer_of_before_is_read_as_it_was() -> None:
    form = OutputForm(codec_for(int))
    assert form.read_old("5") == (5, None)
    assert form.read_old('{"answer": 5}')[1] == (
        "The answer must be JSON of this schema, and nothing else: {'type': 'integer'}"
    )
    assert ModelResponse(message=parts("5")).verdict is None


@pytest.mark.parametrize("root", [float, float | None, Any])
@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", '{"answer": NaN}'])
def test_a_number_that_is_none_in_json_is_asked_for_again(root: Any, text: str) -> None:
    agent = Agent("a", model=ScriptedModel(text, "1.5"), instructions="", output_type=root)

    async def main() -> AgentResult[Any]:
        async with MemoryBackend([agent]) as backend:
            return await backend.invoke(agent, "go")

    result = asyncio.run(main())
    assert (result.output, result.iterations, result.stop_reason) == (1.5, 2, "completed")


def test_so_is_one_within_an_answer() -> None:
    form = OutputForm(codec_for(list[float | None]))
    for text in ("[NaN]", "[1.0, 1e999]"):
        output, complaint = form.read(AssistantMessage(parts=[TextPart(text=text)]))
        assert output is None
        assert complaint is not None
        assert "has no JSON form" in complaint
