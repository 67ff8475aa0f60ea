"""Answers that come later, on Temporal: the waits are timers, and a cancelled run calls off what it waits for."""

from __future__ import annotations

import asyncio

import pytest

from durably.core import Agent, RunCancelledError, tool
from durably.core.ids import new_id
from durably.core.run_view import RunStatus
from durably.providers.openai import OpenAIModel
from durably.testing import call
from durably.testing.models.llm_server import LLMServer
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@tool
async def find(order: str) -> str:
    """Find an order."""
    return f"order {order} is on its way"


def shop(server: LLMServer) -> Agent:
    model = OpenAIModel("gpt-5", key=None, base_url=server.openai_url, api="responses")
    return Agent("shop", model=model, instructions="Be brief.", tools=[find], model_options={"background": True})


async def test_a_run_waits_for_its_answers(open_temporal: OpenTemporal) -> None:
    async with LLMServer(call("find", order="7"), "It is on its way.", polls=0) as server:
        agent = shop(server)
        async with open_temporal(agent) as backend:
            run = await backend.start(agent, "Where is order 7?", run_id=new_id())
            result = await run.result()
            steps = [record.step_id for record in (await run.history()).steps()]
    assert result.text == "It is on its way."
    assert len(server.submitted) == 2, "each request is submitted once"
    asked = ["think", "wait-answer", "fetch-answer"]
    assert [each for each in steps if each in asked] == asked * 2


async def test_a_worker_that_comes_later_goes_on_asking(open_temporal: OpenTemporal) -> None:
    async with LLMServer("Done.", polls=0) as server:
        agent = shop(server)
        async with open_temporal(agent) as backend:
            run = await backend.start(agent, "?", run_id=new_id())
            while not server.submitted:  # noqa: ASYNC110  # the server has no event for it
                await asyncio.sleep(0.02)
        async with open_temporal(agent) as backend:
            assert (await (await backend.run(run.id)).result()).text == "Done."
    assert [request.path for request in server.received if request.method == "POST"] == ["/v1/responses"]


async def test_a_cancelled_run_cancels_its_answer(open_temporal: OpenTemporal) -> None:
    async with LLMServer("never", polls=10**9) as server:
        agent = shop(server)
        async with open_temporal(agent) as backend:
            run = await backend.start(agent, "?", run_id=new_id())
            while "wait-answer" not in [each.step_id for each in await run.history()]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await run.cancel()
            with pytest.raises(RunCancelledError):
                await run.result()
            assert run.status is RunStatus.CANCELLED
            history = await run.history()
    assert [job.ended for job in server.submitted] == ["cancelled"]
    assert {record.step_id for record in history if record.key} == {
        "load-context",
        "load-history",
        "think",
        "wait-answer",
    }, "to call it off is no step"
