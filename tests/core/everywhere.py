"""The tests of what a model writes and of what is defined, for engines that this folder does not know."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from tests.core import test_agent_options, test_model_input, test_tools


def cases_for(fixture: str) -> dict[str, Any]:
    """Each test that opens a backend, with another fixture in the place of the one that opens it.

    Args:
        fixture: The name of the fixture, which takes the same arguments as ``open_backend``.
    """
    return {name: _on(fixture, test) for name, test in _tests()}


def _tests() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in (test_agent_options, test_model_input, test_tools):
        for name, test in vars(module).items():
            if name.startswith("test_") and "open_backend" in inspect.signature(test).parameters:
                yield name, test


def _on(fixture: str, test: Callable[..., Any]) -> Any:
    names = [name for name in inspect.signature(test).parameters if name != "open_backend"]

    async def run(**given: Any) -> None:
        test_tools.RAN.clear()
        await test(given.pop(fixture), **given)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    kinds = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kinds) for name in (fixture, *names)]
    )
    run.pytestmark = list(getattr(test, "pytestmark", []))  # type: ignore[attr-defined]
    return run
