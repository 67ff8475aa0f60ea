"""Functions, agents and references are frozen, equal to themselves alone, and can be referred to weakly."""

from __future__ import annotations

import copy
import weakref
from typing import Any, assert_type

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, AgentResult, Context, DefinitionError, Function, FunctionRef, Run, function
from durably.testing import ScriptedModel


@function("double", retries=1)
async def double(ctx: Context[int]) -> int:
    return 2 * ctx.input


KINDS: list[FunctionRef[Any, Any]] = [
    FunctionRef[int, int]("remote", input_type=int, output_type=int),
    double,
    Agent("agent", model=ScriptedModel("done"), instructions=""),
]
each_kind = pytest.mark.parametrize("reference", KINDS, ids=lambda reference: type(reference).__name__)


@each_kind
@pytest.mark.parametrize("name", ["id", "output", "handler", "think", "flow_control", "unheard_of"])
def test_no_attribute_can_be_set(reference: FunctionRef[Any, Any], name: str) -> None:
    missing = object()
    before = getattr(reference, name, missing)
    kind = type(reference).__name__
    sentence = f"^{kind} '{reference.id}' is frozen: make a new one instead of setting '{name}'$"
    with pytest.raises(AttributeError, match=sentence):
        setattr(reference, name, None)
    assert getattr(reference, name, missing) == before


@each_kind
def test_no_attribute_can_be_deleted(reference: FunctionRef[Any, Any]) -> None:
    with pytest.raises(AttributeError, match="is frozen: 'id' cannot be deleted"):
        del reference.id
    assert reference.id


@each_kind
def test_it_holds_what_its_class_names_and_nothing_else(reference: FunctionRef[Any, Any]) -> None:
    assert not hasattr(reference, "__dict__")


@each_kind
def test_it_is_equal_to_itself_alone(reference: FunctionRef[Any, Any]) -> None:
    twin = copy.copy(reference)
    assert twin.id == reference.id
    assert twin.output is reference.output
    assert {reference: 1}.get(twin) is None
    assert reference == reference
    assert twin != reference


@each_kind
def test_it_can_be_referred_to_weakly(reference: FunctionRef[Any, Any]) -> None:
    assert weakref.ref(reference)() is reference
    assert weakref.WeakKeyDictionary({reference: 1})[reference] == 1


def test_a_copy_may_differ_in_some_attributes() -> None:
    async def triple(ctx: Context[int]) -> int:
        return 3 * ctx.input

    changed = double._replace(handler=triple)
    assert isinstance(changed, Function)
    assert (changed.id, changed.retries, changed.handler) == ("double", 1, triple)
    assert double.handler is not triple


def test_an_id_that_could_be_mistaken_for_a_key_is_refused() -> None:
    with pytest.raises(DefinitionError, match="function id: "):
        FunctionRef("a/b")


def test_an_agent_listens_to_its_own_event_and_to_those_it_is_given() -> None:
    agent = Agent("agent", model=ScriptedModel("done"), instructions="", triggers=["order/paid"])
    assert agent.triggers == ("order/paid", "durably/agent.start.agent")


@pytest.mark.asyncio
async def test_type_checkers_know_what_goes_in_and_what_comes_out() -> None:
    remote = FunctionRef[int, int]("double", input_type=int, output_type=int)
    agent = Agent("agent", model=ScriptedModel("done"), instructions="")
    assert_type(double, Function[int, int])
    async with MemoryBackend([double, agent]) as backend:
        assert assert_type(await backend.invoke(double, 2), int) == 4
        assert assert_type(await backend.invoke(remote, 2), int) == 4
        assert assert_type(await backend.invoke(agent, "go"), AgentResult[None]).text == "done"
        assert assert_type(await backend.start(remote, 2), Run[int]).id
