"""A server that does not answer: what is asked says so, and who waits for a run goes on waiting."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import inngest
import pytest

from durably.backends.inngest import InngestBackend
from durably.core import Context, Event, function
from durably.core.errors import EngineUnavailableError
from durably.testing.inngest import InngestEngine

pytestmark = pytest.mark.asyncio

NOWHERE = "http://127.0.0.1:1"


@function("outage-works")
async def works(ctx: Context[None]) -> str:
    return await ctx.step.run("work", str, "done")


ASKED: Mapping[str, Callable[[InngestBackend], Awaitable[Any]]] = {
    "start": lambda backend: backend.start(works),
    "start with an id": lambda backend: backend.start(works, run_id="r"),
    "send": lambda backend: backend.send(Event("outage/go", "now")),
    "run": lambda backend: backend.run("r"),
    "runs": lambda backend: backend.runs(),
    "history": lambda backend: backend.history("r"),
}


@pytest.mark.parametrize("what", ASKED)
async def test_what_is_asked_of_a_server_that_is_down_says_so(what: str) -> None:
    client = inngest.Inngest(app_id="outage", api_base_url=NOWHERE, event_api_base_url=NOWHERE, is_production=False)
    with pytest.raises(EngineUnavailableError, match=f"server at {NOWHERE} does not answer"):
        await ASKED[what](InngestBackend(client))


async def test_a_wait_for_a_run_outlasts_an_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = InngestEngine()
    client = engine.client()
    backend = InngestBackend(client, [works], serve=engine.serve, now=engine.now, poll=0.001)
    monkeypatch.setattr("durably.core.outages.PAUSE", 0.001)
    async with backend:
        run = await backend.start(works)
        http = client._http_client._http_client
        send, refusals = http.send, iter(range(3))

        async def refuse(request: httpx.Request, **options: Any) -> httpx.Response:
            if next(refusals, None) is not None:
                return httpx.Response(503, request=request)
            answer: httpx.Response = await send(request, **options)
            return answer

        monkeypatch.setattr(http, "send", refuse)
        assert await run.result() == "done"
    told = [record for record in caplog.records if "waits until the server" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING], "it is said once"
