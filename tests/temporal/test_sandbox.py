"""Workflows in Temporal's sandbox, with every provider, and no passthrough block written by a user."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError, SandboxedWorkflowRunner

from durably import providers
from durably.core import Context, InvokeError, function
from tests.temporal.conftest import OpenTemporal
from tests.temporal.test_agent import support

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

NAMES = sorted(each.name for each in iter_modules(providers.__path__))


@function("imports")
async def imports(ctx: Context[None]) -> list[str]:
    """Imports every provider inside the workflow, which is what Temporal's sandbox watches."""
    return [import_module(f"durably.providers.{name}").__name__ for name in NAMES]


@function("opens", retries=0)
async def opens(ctx: Context[None]) -> str:
    with open(__file__) as file:  # noqa: ASYNC230  # this is what must be refused
        return file.read()


@pytest.mark.parametrize("options", [{}, {"workflow_runner": SandboxedWorkflowRunner()}], ids=["ours", "temporals"])
async def test_every_provider_can_be_imported_in_a_workflow(
    open_temporal: OpenTemporal, options: dict[str, Any]
) -> None:
    assert {"anthropic", "litellm", "openai"} <= set(NAMES)
    for name in NAMES:
        import_module(f"durably.providers.{name}")
    async with open_temporal(imports, support, worker_options=options) as backend:
        names = await backend.invoke(imports)
        assert (await backend.invoke(support, "Where is order 7?")).text == "Shipped."
    assert len(names) == len(NAMES)


async def test_a_function_that_opens_a_file_is_refused(open_temporal: OpenTemporal) -> None:
    async with open_temporal(opens) as backend:
        with pytest.raises(InvokeError) as caught:
            await backend.invoke(opens)
    assert caught.value.error_type == RestrictedWorkflowAccessError.__name__


async def test_a_user_may_choose_the_runner(open_temporal: OpenTemporal) -> None:
    options: dict[str, Any] = {"workflow_runner": UnsandboxedWorkflowRunner()}
    async with open_temporal(opens, worker_options=options) as backend:
        assert "opens" in await backend.invoke(opens)
