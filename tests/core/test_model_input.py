"""What a model writes never fails the run: it is told what is wrong, and its answer stays in the records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, Field, FilePath, FutureDate, field_validator

from durably.backends import MemoryBackend
from durably.core import (
    APPROVAL_REQUESTED,
    Agent,
    AgentResult,
    ApprovalRequest,
    Context,
    Function,
    ToolError,
    approve,
    delegate,
    function,
    tool,
)
from durably.core.answers import recordable
from durably.core.messages import (
    AssistantMessage,
    AssistantPart,
    JSONObject,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
)
from durably.core.model import ModelRequest, ModelResponse
from durably.core.tools import Tool
from durably.testing import ScriptedModel, call
from tests.conftest import Open
from tests.core.verdicts import check_verdicts, verdicts


class UnspeakableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class UnspeakableValueError(ValueError):
    """The same, as the kind that pydantic renders itself."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


FAULTS: dict[str, Callable[[], BaseException]] = {
    "key": lambda: KeyError("colour"),
    "zero": lambda: ZeroDivisionError("division by zero"),
    "tool": lambda: ToolError("not this one"),
    "unspeakable": UnspeakableError,
    "unspeakable value": UnspeakableValueError,
    "surrogate": lambda: ValueError("half of a pair: \ud800"),
    "huge": lambda: ValueError("x" * 3_000_000),
    "exit": lambda: SystemExit(3),
    "stop": StopIteration,
}


def faulty(error: Callable[[], BaseException]) -> Any:
    def refuse(value: int) -> int:
        raise error()

    return Annotated[int, AfterValidator(refuse)]


def says(*parts: AssistantPart) -> ModelResponse:
    # Not validated: a provider's parser lets more through than JSON can write.
    return ModelResponse(message=AssistantMessage.model_construct(parts=list(parts)))


def results_of(result: AgentResult) -> list[ToolResultMessage]:
    return [message for message in result.messages if isinstance(message, ToolResultMessage)]


async def told(open_backend: Open, made: Tool, asked: Any, **options: Any) -> ToolResultMessage:
    """What the model is told of one call; the run ends, and reads the same from its records."""
    model = ScriptedModel(asked, "I see.")
    agent = Agent("a", model=model, instructions="", tools=[made], retries=0)
    async with open_backend([agent], **options) as backend:
        run = await backend.start(agent, "go")
        result = await run.result()
        again = await run.result()
        thought = [record.key for record in (await run.history()).steps() if record.step_id == "think"]
    assert (result.text, result.iterations) == ("I see.", 2)
    assert again.messages == result.messages
    assert thought == ["think", "think:1"]
    model.assert_used_up()
    (message,) = results_of(result)
    assert len(str(message.content)) < 10_000
    return message


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.asyncio
async def test_a_validator_may_raise_anything(open_backend: Open, fault: str) -> None:
    ran: list[int] = []
    hint = faulty(FAULTS[fault])

    @tool
    def paint(colour: hint) -> str:  # type: ignore[valid-type]
        ran.append(1)
        return "painted"

    message = await told(open_backend, paint, call("paint", colour=1))
    assert message.is_error
    assert ran == []


@pytest.mark.asyncio
async def test_what_a_validator_raised_is_told(open_backend: Open) -> None:
    hint = faulty(FAULTS["key"])

    @tool
    def paint(colour: hint) -> str:  # type: ignore[valid-type]
        return "painted"

    message = await told(open_backend, paint, call("paint", colour=1))
    assert message.content == "invalid arguments for paint: KeyError: 'colour'"


def nested(depth: int) -> JSONObject:
    value: JSONObject = {}
    for _ in range(depth):
        value = {"in": value}
    return value


ARGUMENTS: dict[str, JSONObject] = {
    "surrogate": {"text": "\ud800"},
    "deep": nested(300),
    "deeper": nested(5_000),
    "long integer": {"text": 10**5000},
    "surrogate key": {"\ud800": "x"},
    "a class": {"text": object()},
}


@pytest.mark.parametrize("kind", ARGUMENTS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.asyncio
async def test_arguments_that_no_record_can_hold(open_backend: Open, kind: str, several: bool) -> None:
    ran: list[str] = []

    @tool
    def write(text: str) -> str:
        ran.append(text)
        return "written"

    bad = ToolCall.model_construct(id="bad", name="write", arguments=ARGUMENTS[kind])
    good = ToolCall(id="good", name="write", arguments={"text": "well"})
    model = ScriptedModel(says(bad, good) if several else says(bad), "I see.")
    agent = Agent("a", model=model, instructions="", tools=[write], retries=0)
    async with open_backend([agent]) as backend:
        run = await backend.start(agent, "go")
        result = await run.result()
        history = await run.history()
    assert [message.is_error for message in results_of(result)] == ([True, False] if several else [True])
    assert ran == (["well"] if several else [])
    assert "write one object, nested less than 100 deep" in str(results_of(result)[0].content).lower()
    assert len([record for record in history if record.key == "think"]) == 1
    model.assert_used_up()


@pytest.mark.parametrize("name", ["\ud800", "x" * 100_000, "", "a/b\n"])
@pytest.mark.asyncio
async def test_names_that_no_tool_has(open_backend: Open, name: str) -> None:
    @tool
    def write(text: str) -> str:
        return text

    message = await told(open_backend, write, says(ToolCall.model_construct(id="1", name=name, arguments={})))
    assert message.is_error
    assert "there is no tool" in str(message.content)
    assert "the tools are: write" in str(message.content)


def test_an_answer_keeps_all_that_can_be_kept() -> None:
    parts: list[AssistantPart] = [
        TextPart(text="well"),
        TextPart(text="half \ud800"),
        TextPart(text="cited", native={"by": "\ud800"}),
        ThinkingPart(text="hm \ud800", signature="signed"),
        RefusalPart(text="no \udfff"),
        OpaquePart(data={"blob": "\ud800"}),
        ToolCall(id="\ud800", name="look", arguments={"x": 1}),
        ToolCall(id="2", name="look", arguments={"x": "\ud800"}, native={"kept": True}),
    ]
    made = recordable(ModelResponse(message=AssistantMessage(parts=parts), request_id="r"))
    assert made.request_id == "r"
    assert made.message.parts == [
        TextPart(text="well"),
        TextPart(text="half \\ud800"),
        TextPart(text="cited"),
        ThinkingPart(text="hm \\ud800", signature="signed"),
        RefusalPart(text="no \\udfff"),
        ToolCall(id="\\ud800", name="look", arguments={"x": 1}),
        ToolCall(id="2", name="look", arguments='{"x": "\\ud800"}', native={"kept": True}),
    ]


def test_an_answer_that_fits_is_not_touched() -> None:
    response = ModelResponse(message=AssistantMessage(parts=[ToolCall(id="1", name="look", arguments={"x": 1})]))
    assert recordable(response) is response


@pytest.mark.asyncio
async def test_a_complaint_of_many_lines_is_cut(open_backend: Open) -> None:
    @tool
    def add(numbers: list[int]) -> int:
        return sum(numbers)

    message = await told(open_backend, add, call("add", numbers=["x"] * 5_000))
    assert message.is_error
    assert str(message.content).startswith("invalid arguments for add: numbers.0: Input should be a valid integer")


@pytest.mark.asyncio
async def test_a_task_that_no_record_can_hold_is_not_handed_on(open_backend: Open) -> None:
    helper = Agent("helper", model=ScriptedModel(), instructions="")
    for task in ("\ud800", 10**5000, ["x"] * 3):
        bad = ToolCall.model_construct(id="1", name="ask_helper", arguments={"task": task})
        assert (await told(open_backend, delegate(helper), says(bad))).is_error


class Answer(BaseModel):
    colour: str

    @field_validator("colour")
    @classmethod
    def known(cls, colour: str) -> str:
        return {"red": "red"}[colour]


@pytest.mark.asyncio
async def test_an_answer_whose_validator_raises_is_asked_for_again(open_backend: Open) -> None:
    model = ScriptedModel('{"colour": "blue"}', '{"colour": "red"}')
    agent = Agent("a", model=model, instructions="", output_type=Answer, retries=0)
    async with open_backend([agent]) as backend:
        result = await backend.invoke(agent, "go")
    assert result.output == Answer(colour="red")
    assert result.iterations == 2


class Price(BaseModel):
    euros: float


@pytest.mark.asyncio
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
async def test_an_answer_that_no_record_can_hold_is_asked_for_again(open_backend: Open, number: str) -> None:
    model = ScriptedModel(f'{{"euros": {number}}}', '{"euros": 1.5}')
    agent = Agent("a", model=model, instructions="", output_type=Price, retries=0)
    async with open_backend([agent]) as backend:
        result = await backend.invoke(agent, "go")
    assert (result.output, result.iterations) == (Price(euros=1.5), 2)


@pytest.mark.asyncio
async def test_a_text_with_half_of_a_pair_is_escaped(open_backend: Open) -> None:
    agent = Agent("a", model=ScriptedModel("half \ud800"), instructions="", retries=0)
    async with open_backend([agent]) as backend:
        result = await backend.invoke(agent, "go")
    assert result.text == "half \\ud800"


# -- a verdict that depends on the world


@tool
def delete(path: FilePath) -> str:
    """Delete a file."""
    path.unlink()
    return f"deleted {path.name}"


@tool(requires_approval=True)
def delete_if_allowed(path: FilePath) -> str:
    """Delete a file."""
    path.unlink()
    return f"deleted {path.name}"


@function("desk", triggers=[APPROVAL_REQUESTED])
async def desk(ctx: Context[ApprovalRequest]) -> None:
    await ctx.step.send_event("answer", approve(ctx.input.approval))


@pytest.mark.parametrize("remove", [delete, delete_if_allowed])
@pytest.mark.asyncio
async def test_a_verdict_that_depends_on_files_is_not_taken_again(
    open_backend: Open, tmp_path: Path, remove: Tool
) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("old")

    def script(request: ModelRequest) -> Any:
        if request.turn == 2:
            new.write_text("new")
            return "done"
        return call(remove.name, path=str([old, new][request.turn]))

    agent = Agent("a", model=ScriptedModel(script), instructions="", tools=[remove])
    async with open_backend([agent, desk]) as backend:
        run = await backend.start(agent, "go")
        result = await run.result()
        history = await run.history()
    # By now the first path is none, and the second is one: both the other way round than when they were judged.
    assert (old.exists(), new.exists()) == (False, True)
    first, second = results_of(result)
    assert (first.content, first.is_error) == ("deleted old.txt", False)
    assert second.is_error
    assert "Path does not point to a file" in str(second.content)
    keys = [record.key for record in history.steps() if remove.name in record.key]
    assert keys.count("ask-delete_if_allowed") + sum("/ask-" in key for key in keys) == (remove is delete_if_allowed)
    again = agent.restore(result.model_copy(), history)
    assert again.messages == result.messages


@pytest.mark.asyncio
async def test_a_run_with_such_a_verdict_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")

    @function("pause")
    async def pause(ctx: Context[None]) -> str:
        await ctx.step.sleep("rest", 10)
        return "rested"

    helper = Agent("helper", model=ScriptedModel("helped"), instructions="")
    asks: list[Any] = [call("delete", path=str(path)), call("delete", path=str(path)), call("ask_helper", task="help")]
    agent = Agent("a", model=ScriptedModel(*asks, "done"), instructions="", tools=[delete, delegate(helper)])
    functions: list[Function[Any, Any]] = [agent, pause]
    async with MemoryBackend(functions, evict="always") as backend:  # the code starts over after each wait
        run = await backend.start(agent, "go")
        result = await run.result()
    assert [message.is_error for message in results_of(result)] == [False, True, False]


class Size(Enum):
    SMALL = "small"


class Basket(BaseModel):
    """A model of one's own, with nothing in it that runs code."""

    id: UUID
    size: Size = Size.SMALL
    price: Decimal = Field(default=Decimal(1), ge=0)
    kind: Literal["gift", "own"] = "own"
    lines: list[str] = Field(default_factory=list)


@pytest.mark.asyncio
async def test_several_such_verdicts_in_one_turn(open_backend: Open, tmp_path: Path) -> None:
    functions = verdicts(tmp_path)
    async with open_backend(functions) as backend:
        await check_verdicts(backend, functions[0])


@pytest.mark.asyncio
async def test_such_verdicts_hold_whenever_the_code_starts_over(tmp_path: Path) -> None:
    functions = verdicts(tmp_path)
    async with MemoryBackend(functions, evict="always") as backend:
        await check_verdicts(backend, functions[0])


def test_which_verdicts_are_recorded() -> None:
    @tool
    def plain(
        name: str,
        basket: Basket | None = None,
        when: datetime | None = None,
        tags: list[dict[str, float]] = [],  # noqa: B006
    ) -> str:
        return ""

    @tool
    def dated(day: FutureDate) -> str:
        return ""

    @tool
    def judged(answer: Answer) -> str:
        return ""

    @tool
    def made(number: Annotated[int, Field(default_factory=lambda: 1, validate_default=True)]) -> str:
        return ""

    tomorrow = (date.today() + timedelta(days=1)).isoformat()  # noqa: DTZ011  # pydantic compares with the local day
    assert not plain.checks_in_step(ToolCall(id="1", name="plain", arguments={"name": "x"}))
    assert not plain.checks_in_step(ToolCall(id="1", name="plain", arguments={}))
    assert not plain.checks_in_step(ToolCall(id="1", name="plain", arguments={"name": "x", "basket": {"id": "?"}}))
    assert dated.checks_in_step(ToolCall(id="1", name="dated", arguments={"day": tomorrow}))
    assert judged.checks_in_step(ToolCall(id="1", name="judged", arguments={"answer": {"colour": "red"}}))
    assert made.checks_in_step(ToolCall(id="1", name="made", arguments={}))


@pytest.mark.asyncio
async def test_records_of_before_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A call that was refused left no step, whatever its tool validates by: such a record has no mark."""
    gone = str(tmp_path / "gone.txt")
    agent = Agent("a", model=ScriptedModel(call("delete", path=gone), "I see."), instructions="", tools=[delete])
    agent_of_before = Agent("a", model=agent.model, instructions="", tools=[delete])
    unmarked = pytest.MonkeyPatch()
    unmarked.setattr(Tool, "checks_in_step", lambda self, call: False)
    async with MemoryBackend([agent_of_before]) as backend:
        run = await backend.start(agent_of_before, "go")
        result = await run.result()
        history = await run.history()
    unmarked.undo()
    assert [record.key for record in history.steps()] == ["load-context", "load-history", "think", "think:1"]
    assert agent.restore(result.model_copy(), history).messages == result.messages


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.asyncio
async def test_an_answer_that_is_too_large_is_asked_for_again(open_backend: Open, typed: bool) -> None:
    ran: list[int] = []

    @tool
    def write(text: str) -> str:
        ran.append(len(text))
        return "written"

    short = '"short"' if typed else "short"
    model = ScriptedModel(call("write", text="x" * 20_000), f'"{"y" * 20_000}"', call("write", text="z"), short)
    output = {"output_type": str} if typed else {}
    agent = Agent("a", model=model, instructions="", tools=[write], **output)  # type: ignore[call-overload]
    async with open_backend([agent], max_payload_bytes=10_000) as backend:
        run = await backend.start(agent, "go")
        result = await run.result()
        thought = [record for record in (await run.history()).steps() if record.step_id == "think"]
    assert (result.text, result.output, result.iterations) == (short, "short" if typed else None, 4)
    assert ran == [1]
    assert len(thought) == 4, "what was paid for is in the records"
    assert result.usage.output_tokens == sum(each.value["usage"]["output_tokens"] for each in thought) > 0
    told = [str(message.content) for message in result.messages if message.role == "user"]
    assert len(told) == 3
    assert "bytes, and 10,000 can be kept" in told[1]


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_brief_uses_up_its_turns(open_backend: Open) -> None:
    model = ScriptedModel(lambda _: "y" * 20_000)
    agent = Agent("a", model=model, instructions="", max_iterations=3)
    async with open_backend([agent], max_payload_bytes=10_000) as backend:
        result = await backend.invoke(agent, "go")
    assert (result.stop_reason, result.iterations) == ("max_iterations", 3)


@pytest.mark.asyncio
async def test_the_verdict_on_a_typed_answer_is_recorded(open_backend: Open, tmp_path: Path) -> None:
    judged: list[str] = []

    def look(path: Path) -> Path:
        judged.append(path.name)
        assert path.exists()
        return path.with_suffix(".seen")

    file = tmp_path / "report.txt"
    file.write_text("done")
    model = ScriptedModel('"missing.txt"', f'"{file}"')
    agent = Agent("a", model=model, instructions="", output_type=Annotated[Path, AfterValidator(look)])

    @function("outer")
    async def outer(ctx: Context[str]) -> str:
        result = await ctx.step.invoke("ask", agent, ctx.input)
        file.unlink(missing_ok=True)
        return str(result.output)

    async with open_backend([outer, agent]) as backend:
        run = await backend.start(outer, "Where?")
        assert await run.result() == str(file.with_suffix(".seen"))
        (child,) = [each for each in await backend.runs() if each.id != run.id]
        result = await child.result()
        assert (result.output, result.iterations, len(result.messages)) == (file.with_suffix(".seen"), 2, 4)
    assert judged == ["missing.txt", "report.txt"], "each answer is judged once"
