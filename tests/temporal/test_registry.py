"""What a worker reads off a body that it finds by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from durably.backends.temporal.activities import _written_as
from durably.backends.temporal.payloads import ActivityRequest
from durably.backends.temporal.registry import StepRegistry, parameter_types
from durably.core import Agent, Tool, toolset
from durably.testing import ScriptedModel

if TYPE_CHECKING:
    from decimal import Decimal as Price


def add(price: Price, count: int, *rest: float) -> Price:
    raise NotImplementedError


def count(price: Price) -> int:
    raise NotImplementedError


def test_each_parameter_is_looked_at_alone() -> None:
    assert parameter_types(add, 4) == (Any, int, float, float)
    assert parameter_types(count, 1) == (Any,)


def test_a_return_annotation_for_type_checkers_alone_is_none() -> None:
    assert _written_as(add) is Any
    assert _written_as(count) is None


@pytest.mark.parametrize(
    "request_", [ActivityRequest(body=""), ActivityRequest(body="a:b", once=True, cause={"x": 1}, lost=2)]
)
def test_a_request_is_read_as_it_was_written(request_: ActivityRequest) -> None:
    assert ActivityRequest.from_payload(request_.to_payload()) == request_


def test_any_worker_finds_the_bodies_of_an_agent_its_tools_and_its_toolsets() -> None:
    def pick() -> str:
        return ""

    model = ScriptedModel("Done.")
    agent = Agent("a", model=model, instructions="", tools=[pick, toolset(list[Tool], name="pick")])
    registry = StepRegistry({"a": agent}, {}, {})
    (shelf,) = agent.toolsets
    bodies: dict[str, Callable[..., Any]] = {
        "@a.think": agent.think,
        "@a/pick.run_sync": agent.tools["pick"].run_sync,
        "@a/~pick.list_tools": shelf.list_tools,
    }
    for name, body in bodies.items():
        assert registry.name_of(body, agent) == name
        assert registry.find(name) == body


def test_a_program_run_as_a_module_has_the_name_that_others_import(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec("shop.worker", None)
    exec("def pay(): ...", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    agent = Agent("a", model=ScriptedModel("Done."), instructions="")
    registry = StepRegistry({}, {}, {})
    assert registry.name_of(main.pay, agent) == "shop.worker:pay"
    assert registry.find("shop.worker:pay") is main.pay
    assert registry.find("__main__:pay") is main.pay, "as workers of before have named it"
