"""C04 and C13 for values of the user's own types: read back without being judged again, equal or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, FilePath, NewPath, SecretStr, field_validator

from durably.core import Agent, Context, Event, Function, InvokeError, RetryAfterError, SerializationError, function
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill, Subject, at
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel


def _marked(text: str) -> str:
    return f"{text}!"


@dataclass
class _Line:
    count: int

    def __post_init__(self) -> None:
        self.count += 1


class _Report(BaseModel):
    source: FilePath
    target: NewPath
    user_id: int = Field(alias="userId")
    text: Annotated[str, AfterValidator(_marked)]
    lines: list[_Line]

    @field_validator("user_id")
    @classmethod
    def _next(cls, value: int) -> int:
        return value + 1


def _form(folder: str) -> Any:
    lines = [{"count": 1}]
    return {"source": f"{folder}/a", "target": f"{folder}/b", "userId": 1, "text": "x", "lines": lines}


def _report(folder: str) -> _Report:
    return _Report.model_validate(_form(folder))


def _move(folder: str) -> bool:
    """Make the source a wrong one and the target too: nothing that looks at the disk accepts them any more."""
    source = Path(folder, "a")
    if source.exists():
        source.rename(Path(folder, "b"))
    return True


@contextmanager
def _folder() -> Iterator[str]:
    """A folder in which a form is right."""
    with TemporaryDirectory() as folder:
        Path(folder, "a").touch()
        yield folder


def _echo(value: int) -> int:
    return value


@clause
async def test_c04_a_recorded_value_is_not_judged_again(subject: Subject) -> None:
    passes: list[_Report] = []

    @function("report")
    async def report(ctx: Context[str]) -> int:
        value = await ctx.step.run("report", _report, ctx.input)
        passes.append(value)
        await ctx.step.run("move", _move, ctx.input)
        return await ctx.step.run("last", _echo, value.user_id)

    with _folder() as folder:
        expected = _report(folder)
        assert await subject.crash(report, data=folder, where=at("before_body", "last"))
        result, _ = await subject.run(report, data=folder)
    assert result == 2
    assert len(passes) > 1
    assert passes == [expected] * len(passes), "no validator changes it a second time"


@clause
async def test_c04_an_input_is_judged_once(subject: Subject) -> None:
    passes: list[_Report] = []

    @function("child")
    async def child(ctx: Context[_Report]) -> int:
        passes.append(ctx.input)
        folder = str(ctx.input.source.parent)
        await ctx.step.run("move", _move, folder)
        return await ctx.step.run("last", _echo, ctx.input.user_id)

    @function("parent")
    async def parent(ctx: Context[str]) -> int:
        return await ctx.step.invoke("call", child, _form(ctx.input))

    with _folder() as folder:
        expected = _report(folder)
        assert await subject.crash(parent, child, data=folder, where=at("before_body", "last"))
        result, _ = await subject.run(parent, child, data=folder)
    assert result == 2
    assert len(passes) > 1
    assert passes == [expected] * len(passes), "the input is what invoke made of it"


class _Base(BaseModel):
    name: str


class _More(_Base):
    extra: int = 1


class _Hidden(BaseModel):
    kept: int
    hidden: str = Field(default="", exclude=True)


class _Measure(BaseModel):
    value: float | None


class _Login(BaseModel):
    password: SecretStr


def _subclass() -> _Base:
    return _More(name="n")


def _excluded() -> _Hidden:
    return _Hidden(kept=1, hidden="x")


def _nan() -> _Measure:
    return _Measure(value=float("nan"))


def _secret() -> _Login:
    return _Login(password=SecretStr("hunter2"))


def _two_keys() -> dict[Any, str]:
    return {1: "a", "1": "b"}


def _union() -> bytes | str:
    return "abcd"


_CHANGING: list[tuple[Callable[[], Any], str]] = [
    (_subclass, "_More comes back as _Base"),
    (_excluded, "hidden: 'x'"),
    (_nan, "value: nan"),
    (_secret, "password: a secret"),
    (_two_keys, "2 keys come back as 1"),
    (_union, "str comes back as bytes"),
]


def _changing(body: Callable[[], Any]) -> Function[None, None]:
    @function("changing", retries=2)
    async def changing(ctx: Context[None]) -> None:
        await ctx.step.run("make", body)

    return changing


@clause
async def test_c13_a_value_that_would_come_back_changed_is_refused(subject: Subject) -> None:
    for number, (body, what) in enumerate(_CHANGING):
        error, _ = await subject.fail(_changing(body), number=number)
        assert isinstance(error, InvokeError)
        assert error.error_type == SerializationError.__name__, body.__name__
        assert what in str(error), f"it names the field: {error}"


@function("sender", retries=2)
async def _sender(ctx: Context[None]) -> None:
    await ctx.step.send_event("tell", Event("c13/told", {"value": float("nan")}))


@clause
async def test_c13_an_event_that_would_arrive_changed_is_refused(subject: Subject) -> None:
    error, _ = await subject.fail(_sender)
    assert isinstance(error, InvokeError)
    assert error.error_type == SerializationError.__name__
    async with subject.open([_sender]) as backend:
        for data in ({"value": float("nan")}, [_nan()], {1: "a", "1": "b"}):
            try:
                await backend.send(Event("c13/told", data))
            except SerializationError:
                continue
            raise AssertionError(f"{data} was sent")


@clause
async def test_c04_the_verdict_on_a_typed_answer_holds(subject: Subject) -> None:
    judged: list[str] = []

    def look(name: str) -> str:
        judged.append(name)
        if judged.count(name) > 1 or name == "wrong":
            raise ValueError(name)
        return f"seen {name}"

    agent = Agent(
        "c04-typed",
        model=ScriptedModel('"wrong"', '"right"'),
        instructions="",
        output_type=Annotated[str, AfterValidator(look)],
    )
    assert await subject.crash(agent, data="go", where=at("after_commit", "think:1"))
    result, _ = await subject.run(agent, data="go")
    assert (result.output, result.iterations, len(result.messages)) == ("seen right", 2, 4)
    assert judged == ["wrong", "right"], "each answer is judged once"


@clause
async def test_c04_what_an_event_brings_is_judged_once(subject: Subject) -> None:
    judged: list[int] = []
    seen: list[tuple[str, int]] = []

    def once(value: int) -> int:
        judged.append(value)
        if judged.count(value) > 1:
            raise ValueError("judged before")
        return value + 1

    class Order(BaseModel):
        number: Annotated[int, AfterValidator(once)]

    async def note(number: int) -> int:
        return number

    @function("c04-triggered", triggers=["c04/order"], retries=2)
    async def triggered(ctx: Context[Order]) -> int:
        seen.append((type(ctx.input).__name__, ctx.input.number))
        noted = await ctx.step.run("note", note, ctx.input.number)
        if ctx.attempt == 1:
            raise RetryAfterError("another attempt", delay=0)
        return await ctx.step.run("note", note, noted)

    fired: list[Point] = []

    def probe(point: Point) -> None:
        if not fired and point.name == "after_commit" and point.key == "note":
            fired.append(point)
            raise Kill

    async with subject.open([triggered]) as backend:
        backend.probe = probe
        await backend.send(Event("c04/order", {"number": 7}, id=f"c04-{subject.token}"))
        await subject.until(lambda: bool(fired))
    before = len(seen)
    async with subject.open([triggered]):
        await subject.until(lambda: len(seen) > before + 1)
    assert set(seen) == {("Order", 8)}, "the same input at each attempt and replay"
    assert judged == [7]
