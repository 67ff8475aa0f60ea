"""What can be a tool, what becomes of its result, and which definitions are refused."""

from __future__ import annotations

import functools
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel, Field, computed_field, field_serializer

from durably.backends import MemoryBackend
from durably.core import Agent, AgentResult, Context, DefinitionError, Function, InvokeError, function, tool
from durably.core.messages import ToolResultMessage
from durably.core.tools import Tool
from durably.testing import ScriptedModel, call
from tests.conftest import Open

if TYPE_CHECKING:
    from decimal import Decimal as Price


def results_of(result: AgentResult) -> list[tuple[str, bool]]:
    return [(str(m.content), m.is_error) for m in result.messages if isinstance(m, ToolResultMessage)]


async def answers(open_backend: Open, made: Tool, *arguments: dict[str, Any], **options: Any) -> list[tuple[str, bool]]:
    """What the model is told of calls of a tool, one in each turn. The run ends with the model's last word."""
    calls: list[Any] = [call(made.name, **each) for each in arguments]
    model = ScriptedModel(*calls, "done")
    agent = Agent("a", model=model, instructions="", tools=[made], retries=0)
    async with open_backend([agent], **options) as backend:
        result = await backend.invoke(agent, "go")
    assert result.text == "done"
    model.assert_used_up()
    return results_of(result)


# -- results

RAN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


async def answer() -> int:
    RAN.append("answer")
    return 7


class Unwritable(BaseModel):
    """A result whose serializer raises."""

    name: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shown(self) -> str:
        raise KeyError("x" * 3_000_000)


class Unsaid(BaseModel):
    """The same, with an error that pydantic renders."""

    name: str = ""

    @field_serializer("name")
    def shown(self, name: str) -> str:
        raise ValueError("\ud800" * 100_000)


def a_thousand_deep() -> Any:
    value: Any = answer()
    for _ in range(1_000):
        value = [value]
    return value


def own_child() -> list[Any]:
    loop: list[Any] = [answer()]
    loop.append(loop)
    return loop


RESULTS: dict[str, Callable[[], Any]] = {
    "holds itself": own_child,
    "a thousand deep": a_thousand_deep,
    "nan": lambda: float("nan"),
    "infinity in a list": lambda: [1.0, float("-inf")],
    "surrogate": lambda: "half of a pair: \ud800",
    "surrogate in a dict": lambda: {"text": "\ud800"},
    "generator": lambda: (object() for _ in range(3)),
    "coroutine in a list": lambda: [answer()],
    "coroutine in a dict": lambda: {"a": (answer(),)},
    "serializer": Unwritable,
    "another serializer": Unsaid,
    "object": object,
    "function": lambda: answer,
    "too large": lambda: "x" * 3_000,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.asyncio
@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("sync", [True, False])
async def test_a_result_that_cannot_be_kept_is_told(open_backend: Open, kind: str, sync: bool) -> None:
    if sync:

        @tool(name="look")
        def made() -> Any:
            RAN.append("body")
            return RESULTS[kind]()
    else:

        @tool(name="look")
        async def made() -> Any:
            RAN.append("body")
            return RESULTS[kind]()

    ((content, is_error),) = await answers(open_backend, made, {}, max_payload_bytes=2_000)
    assert is_error
    assert "step 'tool-look'" in content
    assert len(content) < 10_000
    assert RAN == ["body"]  # the effect is there, so another attempt would have it twice


@pytest.mark.asyncio
async def test_such_a_result_may_fail_the_run() -> None:
    @tool(on_error="raise")
    async def look() -> Any:
        return object()

    agent = Agent("a", model=ScriptedModel(call("look"), "never"), instructions="", tools=[look])
    with pytest.raises(InvokeError, match="cannot be written as JSON"):
        async with MemoryBackend([agent]) as backend:
            await backend.invoke(agent, "go")


# -- callables


async def add(number: int) -> int:
    """Add one."""
    return number + 1


async def add_to(start: int, number: int) -> int:
    return start + number


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


def promise(number: int) -> Awaitable[int]:
    return add(number)


def coroutine(number: int) -> Coroutine[Any, Any, int]:
    return add(number)


def twice(number: int) -> Any:
    async def inner() -> Any:
        return add(number)

    return inner()


class Adder:
    """Adds."""

    async def __call__(self, number: int) -> int:
        return number + 1

    async def method(self, number: int) -> int:
        return number + 1

    @staticmethod
    async def static(number: int) -> int:
        return number + 1

    @classmethod
    async def of_class(cls, number: int) -> int:
        return number + 1


AROUND_ASYNC: dict[str, Callable[..., Any]] = {
    "wraps": logged(add),
    "lru_cache": functools.lru_cache(add),
    "cache of a decorated one": functools.cache(logged(add)),
    "partial": functools.partial(add_to, 1),
    "object": Adder(),
    "bound method": Adder().method,
    "static method": Adder.static,
    "class method": Adder.of_class,
    "sync, awaitable": promise,
    "sync, coroutine": coroutine,
    "a coroutine of a coroutine": twice,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.asyncio
@pytest.mark.parametrize("kind", AROUND_ASYNC)
async def test_a_tool_around_an_async_function_is_awaited(open_backend: Open, kind: str) -> None:
    made = tool(AROUND_ASYNC[kind], name="add")
    same = {"number": 1}
    assert await answers(open_backend, made, same, same, {"number": 2}) == [("2", False), ("2", False), ("3", False)]


@pytest.mark.filterwarnings("error")
@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [kind for kind in AROUND_ASYNC if kind != "a coroutine of a coroutine"])
async def test_a_body_around_an_async_function_is_awaited(open_backend: Open, kind: str) -> None:
    @function("sum")
    async def add_up(ctx: Context[int]) -> list[int]:
        return [await ctx.step.run("add", AROUND_ASYNC[kind], ctx.input) for _ in range(2)]

    async with open_backend([add_up]) as backend:
        assert await backend.invoke(add_up, 1) == [2, 2]


@pytest.mark.asyncio
async def test_a_function_may_be_a_callable_around_an_async_one(open_backend: Open) -> None:
    async def add_one(ctx: Context[int]) -> int:
        return ctx.input + 1

    class Handler:
        async def __call__(self, ctx: Context[int]) -> int:
            return ctx.input + 1

    handlers: list[Any] = [logged(add_one), functools.lru_cache(add_one), functools.partial(add_one), Handler()]
    made: list[Function[int, int]] = [function(f"f{number}")(each) for number, each in enumerate(handlers)]
    async with open_backend(made) as backend:
        for each in made:
            assert each.output.type is int
            assert [await backend.invoke(each, 1), await backend.invoke(each, 1)] == [2, 2]


def test_the_description_is_that_of_the_function() -> None:
    assert tool(logged(add)).spec.description == "Add one."
    assert tool(functools.partial(add, number=1), name="add").spec.description == "Add one."
    assert tool(Adder(), name="add").spec.description == "Adds."


class Shop:
    def look(self, item: str) -> str:
        return item

    @classmethod
    def open(cls, day: str) -> str:
        return day


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tool(Shop.look), r"it is a method.*tool\(shop.look\)"),
        (lambda: tool(vars(Shop)["open"]), r"leave out @classmethod.*tool\(Shop.look\)"),
        (lambda: tool(Shop), "is not a function: write one with 'def'"),
        (lambda: tool("look"), "is not a function"),  # type: ignore[call-overload]
        (lambda: tool(functools.partial(add, 1)), r"has no name that the model could call it by: tool\(\.\.\., name="),
        (lambda: tool(Adder()), "has no name that the model could call it by"),
        (lambda: tool(lambda: "x"), "providers want a name"),
        (lambda: tool(lambda x: x, name="look"), "a lambda cannot have type hints.*'x'.*write it with 'def'"),
        (lambda: tool(print), r"parameter \*args cannot be given by name; spell each parameter out"),
        (lambda: tool(len), "parameter obj cannot be given by name"),
    ],
)
def test_what_is_no_tool_is_refused_in_words(make: Callable[[], Tool], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        make()


def test_generators_are_refused() -> None:
    def rows() -> Iterator[int]:
        yield 1

    async def lines() -> AsyncIterator[int]:
        yield 1

    for generator in (rows, lines, logged(rows)):
        with pytest.raises(DefinitionError, match=r"is a generator.*collect the values in a list and return that"):
            tool(generator)


def test_a_result_type_without_json_form_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"tool 'look': its result: .*cannot be written as JSON"):

        @tool
        def look() -> Awaitable[Iterator[int]]:
            raise NotImplementedError


# -- parameters

NAMES = (
    "_x __x __x__ model_config model_dump model_fields model_name model_extra model_post_init schema self cls json "
    "copy validate dict construct fields parse_obj arguments parameter0_x class_"
)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NAMES.split())
@pytest.mark.parametrize("rest", ["", " = 5"])
@pytest.mark.parametrize("kind", ["", "*, ", "*, first: int = 0, "])
async def test_a_parameter_may_have_any_name(name: str, rest: str, kind: str) -> None:
    names: dict[str, Any] = {}
    exec(f"def look({kind}{name}: int{rest}) -> int:\n    return {name} + 1", names)
    made = tool(names["look"])
    properties = made.spec.parameters["properties"]
    assert properties[name]["type"] == "integer"
    assert (name in made.spec.parameters.get("required", ())) is not bool(rest)
    arguments: list[dict[str, Any]] = [{name: 1}, {name: "x"}, *([{}] if rest else [])]
    told = await answers(lambda *args, **options: MemoryBackend(*args, **options), made, *arguments)
    assert told[0] == ("2", False)
    assert told[1][1]
    assert f"invalid arguments for look: {name}: " in told[1][0]
    assert told[2:] == ([("6", False)] if rest else [])


def test_the_schema_of_a_name_of_pydantics_is_like_any_other() -> None:
    def look(_x: Annotated[int, Field(description="How many", ge=1)] = 2) -> None: ...

    assert tool(look).spec.parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"_x": {"description": "How many", "minimum": 1, "default": 2, "title": "X", "type": "integer"}},
    }


class Order(BaseModel):
    lines: Iterable[int]


LAZY = [
    Iterable[int],
    Iterator[int],
    Generator[int, None, None],
    AsyncIterable[int],
    AsyncIterator[int],
    Iterable,
    list[Iterable[int]],
    Iterable[int] | None,
    Annotated[Iterable[int], Field(description="x")],
    dict[str, Order],
    Order,
]


@pytest.mark.parametrize("lazy", LAZY, ids=str)
def test_a_parameter_that_is_checked_too_late_is_refused(lazy: Any) -> None:
    with pytest.raises(DefinitionError, match=r"tool 'look': parameter 'rows' is an iterable.*list\[int\]"):

        @tool
        def look(count: int, rows: lazy) -> str:  # pyright: ignore[reportInvalidTypeForm]
            return ""


@pytest.mark.parametrize("lazy", LAZY, ids=str)
def test_an_input_that_is_checked_too_late_is_refused(lazy: Any) -> None:
    with pytest.raises(DefinitionError, match=r"function 'f': its input is an iterable.*list\[int\]"):

        @function("f")
        async def takes(ctx: Context[lazy]) -> None: ...  # pyright: ignore[reportInvalidTypeForm]

    with pytest.raises(DefinitionError, match=r"function 'f': its result is an iterable"):

        @function("f")
        async def gives(ctx: Context[int]) -> lazy: ...  # pyright: ignore[reportInvalidTypeForm]


@pytest.mark.parametrize("lazy", LAZY, ids=str)
def test_an_answer_that_is_checked_too_late_is_refused(lazy: Any) -> None:
    with pytest.raises(DefinitionError, match=r"agent 'a': its output_type is an iterable.*list\[int\]"):
        Agent("a", model=ScriptedModel("x"), instructions="", output_type=lazy)


def test_a_sequence_is_checked_at_once() -> None:
    @tool
    def look(rows: Sequence[int]) -> str:
        return ""

    assert look.spec.parameters["properties"]["rows"]["items"] == {"type": "integer"}


@pytest.mark.asyncio
async def test_a_step_of_lazy_values_is_refused_before_it_runs(open_backend: Open) -> None:
    def rows() -> Iterator[int]:
        RAN.append("rows")
        yield 1

    @function("f")
    async def by_annotation(ctx: Context[None]) -> None:
        await ctx.step.run("rows", rows)

    @function("g")
    async def by_option(ctx: Context[None]) -> None:
        await ctx.step.run("rows", lambda: iter([1]), output_type=Iterable[int])

    async with open_backend([by_annotation, by_option]) as backend:
        for each in (by_annotation, by_option):
            with pytest.raises(InvokeError, match=r"step 'rows': its value would be an iterable.*list\[int\]"):
                await backend.invoke(each, None)
    assert RAN == []


@pytest.mark.parametrize("default", [float("nan"), float("inf"), "\ud800"])
def test_a_default_that_no_schema_can_say_is_refused(default: Any) -> None:
    with pytest.raises(DefinitionError, match=r"tool 'look': .*'limit'"):

        @tool
        def look(limit: Any = default) -> str:
            return ""


# -- annotations that cannot be resolved


def test_each_annotation_is_blamed_for_itself() -> None:
    with pytest.raises(DefinitionError, match="that of parameter 'price'"):

        @tool
        def look(item: str, price: Price) -> str:
            return ""

    with pytest.raises(DefinitionError, match=r"that of the return .*; or give the type as output_type="):

        @tool
        def find(item: str) -> Price:
            raise NotImplementedError

    with pytest.raises(DefinitionError, match=r"that of parameter 'ctx' .*; or give the type as input_type="):

        @function("f")
        async def takes(ctx: Context[Price]) -> int:
            return 1

    with pytest.raises(DefinitionError, match=r"that of the return .*; or give the type as output_type="):

        @function("f")
        async def gives(ctx: Context[int]) -> Price:
            raise NotImplementedError


@pytest.mark.asyncio
async def test_the_advice_works(open_backend: Open) -> None:
    @tool(output_type=float)
    def find(item: str) -> Price:
        return 1.5  # type: ignore[return-value]

    @function("f", input_type=int, output_type=float)
    async def double(ctx: Context[Price]) -> Price:
        def half(whole: Price) -> Price:
            return whole / 2

        halved = await ctx.step.run("half", half, ctx.input, output_type=float)  # type: ignore[arg-type]
        return halved * 4  # type: ignore[return-value]

    assert (double.input.type, double.output.type) == (int, float)
    async with open_backend([double]) as backend:
        assert await backend.invoke(double, 3) == 6.0  # type: ignore[misc]
    assert await answers(open_backend, find, {"item": "cup"}) == [("1.5", False)]


@pytest.mark.asyncio
async def test_a_step_says_which_option_helps(open_backend: Open) -> None:
    def half(whole: Price) -> int:  # the parameter's fault is none of the return's
        return int(whole) // 2

    def whole() -> Price:
        raise NotImplementedError

    @function("f")
    async def blamed(ctx: Context[int]) -> int:
        assert await ctx.step.run("half", half, ctx.input) == 2  # type: ignore[arg-type]
        await ctx.step.run("whole", whole)
        return 1

    async with open_backend([blamed]) as backend:
        with pytest.raises(InvokeError, match=r"the return annotation of whole cannot be resolved .*output_type="):
            await backend.invoke(blamed, 4)


@pytest.mark.asyncio
async def test_plain_functions_may_name_local_classes(open_backend: Open) -> None:
    @dataclass
    class Item:
        name: str

    def look(item: Item) -> Item:
        return Item(item.name.upper())

    agent = Agent("a", model=ScriptedModel(call("look", item={"name": "cup"}), "done"), instructions="", tools=[look])
    async with open_backend([agent]) as backend:
        result = await backend.invoke(agent, "go")
    assert results_of(result) == [('{"name":"CUP"}', False)]
