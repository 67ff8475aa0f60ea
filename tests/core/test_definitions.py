"""A wrong definition fails where it is defined, and says what to change."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from pydantic import Field

from durably.backends import MemoryBackend
from durably.core import Agent, Context, DefinitionError, RetryPolicy, Singleton, function, tool
from durably.core.attempts import StepCall
from durably.testing import ScriptedModel

MODEL = ScriptedModel("done")


async def handler(ctx: Context[int]) -> int:
    return ctx.input


def test_a_tool_needs_type_hints() -> None:
    with pytest.raises(DefinitionError, match=r"tool 'look': parameter 'order' has no type hint.*'order: str'"):

        @tool
        def look(order) -> str:  # type: ignore[no-untyped-def]
            return ""


def test_a_tool_default_must_be_json() -> None:
    with pytest.raises(DefinitionError, match="the default of parameter 'where' cannot be written as JSON"):

        @tool
        def look(where: Any = object()) -> str:  # noqa: B008
            return ""


def test_a_field_is_no_default_of_a_tool() -> None:
    with pytest.raises(DefinitionError, match=r"write 'count: Annotated\[\.\.\., Field\(\.\.\.\)\]'"):

        @tool
        def look(count: int = Field(3, gt=1)) -> str:
            return ""


def test_a_tool_parameter_needs_a_schema() -> None:
    with pytest.raises(DefinitionError, match="no JSON schema for its parameters"):

        @tool
        def look(connection: socket.socket) -> str:
            return ""


def test_a_tool_cannot_take_any_arguments() -> None:
    with pytest.raises(DefinitionError, match="spell each parameter out"):

        @tool
        def look(**options: str) -> str:
            return ""


def test_a_tool_effect_is_one_of_three() -> None:
    with pytest.raises(DefinitionError, match="use 'pure', 'idempotent' or 'at_most_once'"):

        @tool(effect="twice")  # type: ignore[call-overload, untyped-decorator]
        def look() -> str:
            return ""


def test_an_annotation_that_cannot_be_resolved() -> None:
    with pytest.raises(DefinitionError, match="an annotation cannot be resolved"):

        @tool
        def look(order: Missing) -> str:  # type: ignore[name-defined]  # noqa: F821
            return ""


def test_two_tools_of_one_name() -> None:
    @tool
    def look() -> str:
        return ""

    with pytest.raises(DefinitionError, match="agent 'a' has two tools named 'look': rename one"):
        Agent("a", model=MODEL, instructions="", tools=[look, look])


def test_two_functions_of_one_id() -> None:
    first, second = function("same")(handler), function("same")(handler)
    with pytest.raises(DefinitionError, match="two functions have the id 'same': rename one"):
        MemoryBackend([first, second])


def test_one_function_given_twice_is_fine() -> None:
    only = function("same")(handler)
    assert list(MemoryBackend([only, only]).functions) == ["same"]


def test_a_function_must_be_async() -> None:
    with pytest.raises(DefinitionError, match="must be written with 'async def'"):

        @function("sync")  # type: ignore[arg-type]
        def wrong(ctx: Context[int]) -> int:
            return 1


def test_a_function_takes_an_annotated_context() -> None:
    with pytest.raises(DefinitionError, match="annotated with its input's type"):

        @function("bare")
        async def wrong(ctx) -> int:  # type: ignore[no-untyped-def]
            return 1


def test_an_undecorated_function_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"decorate it with @function"):
        MemoryBackend([handler])  # type: ignore[list-item]


@pytest.mark.parametrize("bad", ["", "a/b", "a:b", "a\nb", "x" * 201])
def test_ids_that_could_be_mistaken_for_keys(bad: str) -> None:
    with pytest.raises(DefinitionError, match="is not a function id"):
        function(bad)(handler)


@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"retries": True}, {"triggers": "order/paid"}, {"triggers": [""]}]
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        function("f", **options)(handler)


def test_singleton_and_retry_policy_are_checked() -> None:
    with pytest.raises(DefinitionError, match="use 'cancel', 'skip' or 'queue'"):
        Singleton("key", mode="drop")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="is not a retry policy"):
        RetryPolicy(factor=0.5)


def test_an_input_type_without_json_form() -> None:
    with pytest.raises(DefinitionError, match="cannot be written as JSON"):

        @function("socket")
        async def wrong(ctx: Context[socket.socket]) -> None: ...


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(DefinitionError, match="'nobody:gpt' is not a model: write 'provider:model'"):
        Agent("a", model="nobody:gpt", instructions="")


def test_max_iterations_is_at_least_one() -> None:
    with pytest.raises(DefinitionError, match="max_iterations must be 1 or more"):
        Agent("a", model=MODEL, instructions="", max_iterations=0)


def test_a_definition_is_frozen() -> None:
    agent = Agent("a", model=MODEL, instructions="")
    with pytest.raises(AttributeError, match="frozen"):
        agent.max_iterations = 7


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, "3", None], ids=repr)
def test_a_crash_limit_is_a_number_of_crashes(limit: Any) -> None:
    with pytest.raises(DefinitionError, match="crash_limit is the number of crashes to put up with, 1 or more"):

        @function("limited", crash_limit=limit)
        async def limited(ctx: Context[None]) -> None:
            return

    if limit is not None:
        with pytest.raises(ValueError, match="step 'a': crash_limit is the number of crashes"):
            StepCall.of("a", print, (), crash_limit=limit)
