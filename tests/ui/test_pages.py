"""The page over HTTP: what it shows, whom it listens to, and that nothing recorded gets out of its text."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.cli.address import Program
from durably.cli.stream import KINDS
from durably.core import (
    Agent,
    Backend,
    Context,
    DurablyError,
    FunctionRef,
    NonRetriableError,
    RunStatus,
    function,
    tool,
)
from durably.core.messages import assistant
from durably.core.model import Delta, ModelRequest, ModelResponse
from durably.testing import ScriptedModel, call
from durably.ui.app import make_app
from examples.refund_desk import desk
from tests.cli.program import HOSTILE, QUESTION, echo, make_runs
from tests.ui.served import served

HERE = "http://127.0.0.1:7070"
Test = Callable[[httpx.AsyncClient, Backend], Awaitable[None]]


def on_page(test: Test, **options: Any) -> None:
    """Run a test on the page of a backend with some runs."""

    async def main() -> None:
        async with MemoryBackend([desk, echo, hostile]) as backend:
            await backend.invoke(echo, "hello", run_id="echo-0")
            await backend.invoke(hostile, HOSTILE, run_id="hostile")
            await backend.start(desk, QUESTION, run_id="refund-1042")
            await backend.drain()  # it waits for a person now
            async with page(backend, **options) as http:
                await test(http, backend)

    asyncio.run(main())


@asynccontextmanager
async def page(backend: Backend, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(Program(backend, backend.functions), **options))
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
        yield http


@tool
def fetch(url: str) -> str:
    """Answers with what an attacker wrote."""
    return HOSTILE


hostile = Agent(
    "hostile-agent",
    model=ScriptedModel(call("fetch", url=HOSTILE), HOSTILE),
    instructions=HOSTILE,
    tools=[fetch],
)

EVERY_PAGE = (
    "/runs",
    "/runs/hostile",
    "/runs/hostile/rows?from=0",
    "/runs/hostile/conversation",
    "/runs/hostile/step?key=think",
    "/runs/hostile/step?key=tool-fetch",
    "/runs/hostile/compare?with=echo-0",
    "/runs?text=" + quote(HOSTILE),
    "/runs/refund-1042",
    "/runs/refund-1042/conversation",
    "/approvals",
    "/runs/nobody",
)


class Elements(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.partition("?")[0])
def test_hostile_content_stays_text(path: str) -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        answer = await http.get(path)
        assert answer.status_code in (200, 404)
        elements = Elements()
        elements.feed(answer.text)
        assert "onerror=alert(1)>" not in answer.text
        for tag, attributes in elements.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            assert tag not in ("img", "style", "iframe", "object", "base")
            assert tag != "script" or attributes == {"src": "/static/page.js", "defer": None}
            for name in ("href", "src", "action"):
                assert attributes.get(name) is None or str(attributes[name]).startswith("/")

    on_page(test)


@pytest.mark.parametrize("path", ["/runs", "/runs/nobody", "/static/page.css", "/static/page.js", "/nowhere"])
def test_every_answer_has_a_strict_policy(path: str) -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        headers = (await http.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"

    on_page(test)


def test_the_script_and_the_sheet_load_nothing_from_elsewhere() -> None:
    static = Path(__file__).parents[2] / "cli" / "durably" / "ui" / "static"
    for file in static.iterdir():
        text = re.sub(r'xmlns="[^"]+"', "", file.read_text())
        assert not re.findall(r"https?:|@import|url\(|innerHTML|insertAdjacentHTML|eval\(", text)


# -- what is shown


def test_runs_are_filtered() -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        everything = (await http.get("/runs")).text
        assert all(f"/runs/{each}" in everything for each in ("echo-0", "hostile", "refund-1042"))
        of_echo = (await http.get("/runs?function=echo")).text
        assert "/runs/echo-0" in of_echo
        assert "/runs/refund-1042" not in of_echo
        of_text = (await http.get("/runs?text=und-10")).text
        assert "/runs/refund-1042" in of_text
        assert "/runs/echo-0" not in of_text
        assert (await http.get("/runs?status=nonsense")).status_code == 400

    on_page(test)


def test_runs_are_filtered_by_tag_and_session_and_counted() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        await backend.start(
            FunctionRef("elsewhere"), {"session_key": "s 1"}, run_id="tagged", tags=["tenant:7", "beta"]
        )
        for query in ("session=s+1", "tag=tenant:7&tag=beta"):
            assert listed((await http.get(f"/runs?{query}")).text) == ["tagged"]
        assert listed((await http.get("/runs?tag=tenant:7&tag=gamma")).text) == []
        chips = (await http.get("/runs?tag=beta&status=failed")).text
        assert re.findall(r'class="chip" href="([^"]*)"', chips) == [
            "/runs?tag=beta",
            "/runs?status=waiting&amp;tag=beta",
            "/runs?status=failed&amp;tag=beta",
        ]
        assert re.findall(r"<b>(\d+)</b></a>", chips) == ["1", "1", "0"]
        assert listed(chips) == []

    on_page(test)


def test_pages_of_the_list_go_both_ways() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        for number in range(60):
            await backend.invoke(echo, "x", run_id=f"many-{number}")
        first = (await http.get("/runs?text=many")).text
        assert listed(first) == [f"many-{number}" for number in range(59, 9, -1)]
        assert 'rel="prev"' not in first
        second = (await http.get(link(first, "next"))).text
        assert listed(second) == [f"many-{number}" for number in range(9, -1, -1)]
        assert 'rel="next"' not in second
        assert listed((await http.get(link(second, "prev"))).text) == listed(first)
        assert (await http.get("/runs?after=nonsense")).status_code == 400

    on_page(test)


def listed(text: str) -> list[str]:
    """The runs in a list."""
    return re.findall(r'data-href="/runs/([^"]*)"', text)


def link(text: str, rel: str) -> str:
    """Where the link to a neighbouring page leads."""
    (found,) = re.findall(rf'rel="{rel}" href="([^"]*)"', text)
    return unescape(found)


def test_a_run_says_what_it_waits_for_and_links_its_children() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        text = (await http.get("/runs/refund-1042")).text
        (child,) = await backend.runs(parent="refund-1042")
        assert f'<a href="/runs/{child.id}" title="{child.id}, completed">policy</a>' in text
        assert listed((await http.get("/runs?parent=refund-1042")).text) == [child.id]
        assert "waits for a person to approve refund since" in (await http.get("/runs?text=refund")).text
        assert "/runs/refund-1042/cancel" in (await http.get("/runs/refund")).text  # the beginning is enough
        await backend.start(FunctionRef("elsewhere"), run_id="unserved")
        assert "waits for a worker that serves elsewhere since" in (await http.get("/runs/unserved")).text

    on_page(test)


def test_a_run_is_a_waterfall() -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        text = (await http.get("/runs/refund-1042")).text
        assert text.count("data-step=") == 13
        assert 'class="failed"' in text  # the attempt of get_payments
        assert "5,475 → 268" in text
        assert "refund</b> waits for a person" in text

    on_page(test)


def test_a_step_shows_its_attempts_and_its_call() -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        text = (await http.get("/runs/refund-1042/step", params={"key": "gather[1]/tool-get_payments"})).text
        assert "ConnectionError: the bank&#39;s gateway did not answer" in text
        assert "step?key=think" in text
        assert (await http.get("/runs/refund-1042/step?key=nothing")).status_code == 404

    on_page(test)


def test_a_failure_is_shown_with_its_traceback() -> None:
    def explode() -> str:
        raise NonRetriableError("boom <b>")

    def unwritable() -> object:
        return object()

    @function("failing", retries=1)
    async def failing(ctx: Context[None]) -> None:
        for name, body in (("explode", explode), ("unwritable", unwritable)):
            with suppress(DurablyError):
                await ctx.step.run(name, body)
        raise ValueError("and out")

    @function("failing-once", retries=0)
    async def failing_once(ctx: Context[None]) -> None:
        raise ValueError("at once")

    async def main() -> None:
        async with MemoryBackend([failing, failing_once]) as backend:
            await (await backend.start(failing, run_id="failing")).ended()
            await (await backend.start(failing_once, run_id="failing-once")).ended()
            async with page(backend) as http:
                exploded = (await http.get("/runs/failing/step?key=explode")).text
                assert "NonRetriableError: boom &lt;b&gt;" in exploded
                assert "in explode" in exploded
                assert "SerializationError" in (await http.get("/runs/failing/step?key=unwritable")).text
                failed = (await http.get("/runs/failing")).text
                assert "ValueError</b> and out" in failed
                assert failed.count("<pre>ValueError: and out</pre>") == failed.count("in failing\n") == 2, (
                    "each attempt"
                )
                assert '<dd class="warn">4</dd>' in failed, "two of steps, two of the function"
                assert "in failing_once\n" in (await http.get("/runs/failing-once")).text
                assert "ValueError: and out" in (await http.get("/runs")).text
                assert "unwritable" in (await http.get("/runs/failing/compare?with=failing")).text

    asyncio.run(main())


def test_the_conversation_has_its_calls_in_place() -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        text = (await http.get("/runs/refund-1042/conversation")).text
        order = [text.index(each) for each in ("Where is my money?", "I will look at", "<b>get_order</b>", "Moka pot")]
        assert order == sorted(order)
        assert "no answer yet" in text

    on_page(test)


def test_two_runs_are_compared() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        await backend.invoke(echo, "goodbye", run_id="echo-1")
        text = (await http.get("/runs/echo-0/compare?with=echo-1")).text
        assert "1 steps, 1 differ" in text
        assert "here they part" in text
        assert "0 differ" in (await http.get("/runs/echo-0/compare?with=echo-0")).text

    on_page(test)


@pytest.mark.parametrize("run_id", ["a/b", "..", "a b?c#d", "%2F", "ä/☃", "live"])
def test_a_run_of_any_id_has_a_page(run_id: str) -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        await backend.invoke(echo, "x", run_id=run_id)
        links = Elements()
        links.feed((await http.get("/runs")).text)
        found = []
        for tag, attributes in links.tags:
            if tag == "tr" and attributes.get("data-href"):
                text = (await http.get(str(attributes["data-href"]))).text
                found += re.findall(r'<code class="runid">([^<]*)</code>', text)
        assert run_id.replace("&", "&amp;") in found
        assert "refund-1042" in found

    on_page(test)


def test_a_long_run_comes_in_pieces() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        first = (await http.get("/runs/many")).text
        assert (first.count("data-step="), "/runs/many/rows?from=300" in first) == (300, True)
        rest = (await http.get("/runs/many/rows?from=600")).text
        assert (rest.count("data-step="), "data-more" in rest) == (100, False)

    @function("many")
    async def many(ctx: Context[None]) -> None:
        for _ in range(700):
            await ctx.step.run("one", int)

    async def main() -> None:
        async with MemoryBackend([many]) as backend:
            await backend.invoke(many, run_id="many")
            async with page(backend) as http:
                await test(http, backend)

    asyncio.run(main())


def test_a_long_conversation_comes_in_pieces() -> None:
    script = ScriptedModel(*[call("fetch", url=str(turn)) for turn in range(150)], "done")
    talker = Agent("talker", model=script, instructions="", tools=[fetch], max_iterations=200)

    async def main() -> None:
        async with MemoryBackend([talker]) as backend:
            await backend.invoke(talker, "go", run_id="talk")
            async with page(backend) as http:
                first = (await http.get("/runs/talk/conversation")).text
                assert first.count('class="said ') == 101  # with the instructions
                assert "/runs/talk/messages?chat=0&amp;from=100" in first
                rest = (await http.get("/runs/talk/messages?chat=0&from=100")).text
                assert (rest.count('class="said '), "data-more" in rest) == (52, False)
                assert (await http.get("/runs/talk/messages?chat=1")).status_code == 404

    asyncio.run(main())


# -- what is changed


async def token(http: httpx.AsyncClient) -> str:
    found = re.search(r'name="token" value="([^"]+)"', (await http.get("/runs/refund-1042")).text)
    assert found is not None
    return found[1]


async def answer(http: httpx.AsyncClient, **changed: str) -> httpx.Response:
    """Send the form of the approval that is pending, as a browser would."""
    page = (await http.get("/approvals")).text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    written = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert written is not None
    form = {name: unescape(value) for name, value in {**fields, "arguments": written[1]}.items()}
    return await http.post("/approvals", data={**form, **changed}, headers=OURS)


OURS = {"origin": HERE}


def test_an_approval_is_given() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        done = await answer(http, decision="approve")
        assert (done.status_code, done.headers["location"]) == (303, "/runs/refund-1042")
        run = await (await backend.run("refund-1042")).ended()
        assert run.status is RunStatus.COMPLETED
        assert "Nothing waits for a person" in (await http.get("/approvals")).text

    on_page(test)


def test_an_approval_is_given_with_other_arguments() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        changed = {"order_id": "1042", "amount": 40, "reason": "half of it"}
        assert (await answer(http, decision="approve", arguments="{")).status_code == 400
        assert (await answer(http, decision="approve", arguments="[]")).status_code == 400
        refused = await answer(http, decision="approve", arguments='{"amount": "much"}')
        assert refused.status_code == 409
        assert "amount" in refused.text
        assert (await answer(http, decision="approve", arguments=json.dumps(changed))).status_code == 303
        await (await backend.run("refund-1042")).ended()
        assert "40.00 EUR refunded" in (await http.get("/runs/refund-1042/conversation")).text

    on_page(test)


def test_a_refusal_tells_the_model_why() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        assert (await answer(http, decision="perhaps")).status_code == 400
        assert (await answer(http, decision="reject", reason="too much")).status_code == 303
        await (await backend.run("refund-1042")).ended()
        assert "a person refused it: too much" in (await http.get("/runs/refund-1042/conversation")).text

    on_page(test)


def test_an_answer_that_comes_too_late_is_said() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        (asked,) = await backend.approvals()
        await backend.approve(asked, by="Ada")
        form = {"token": await token(http), "decision": "reject", "approval": asked.id, "run": asked.run_id}
        late = await http.post("/approvals", data=form, headers=OURS)
        assert late.status_code == 409
        assert "Ada approved it" in late.text

    on_page(test)


def test_a_failed_run_is_retried_and_a_run_is_forked() -> None:
    healed: list[bool] = []

    def mend() -> str:
        if not healed:
            raise NonRetriableError("not yet")
        return "well"

    @function("ill", retries=0)
    async def ill(ctx: Context[None]) -> str:
        await ctx.step.run("before", int)
        return await ctx.step.run("mend", mend)

    async def main() -> None:
        async with MemoryBackend([ill]) as backend:
            await (await backend.start(ill, run_id="ill")).ended()
            healed.append(True)
            async with page(backend) as http:
                form = {"token": re.findall(r'name="token" value="([^"]+)"', (await http.get("/runs/ill")).text)[0]}
                assert (await http.post("/runs/ill/retry", data=form, headers=OURS)).status_code == 303
                assert (await (await backend.run("ill")).ended()).status is RunStatus.COMPLETED
                assert (await http.post("/runs/ill/retry", data=form, headers=OURS)).status_code == 409
                made = await http.post("/runs/ill/fork", data={**form, "after": "before"}, headers=OURS)
                text = (await http.get(made.headers["location"])).text
                assert 'Forked from</dt><dd class="cut"><a href="/runs/ill">ill</a>' in text
                nowhere = await http.post("/runs/ill/fork", data={**form, "after": "nowhere"}, headers=OURS)
                assert nowhere.status_code == 409
                other = made.headers["location"].rpartition("/")[2]
                await (await backend.run(other)).ended()
                pair = (await http.get(f"/runs/ill/compare?with={other}")).text
                assert "2 steps, 0 differ" in pair

    asyncio.run(main())


def test_a_run_is_cancelled() -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        form = {"token": await token(http)}
        assert (await http.post("/runs/refund-1042/cancel", data=form, headers=OURS)).status_code == 303
        assert (await backend.run("refund-1042")).status is RunStatus.CANCELLED
        assert (await http.post("/runs/nobody/cancel", data=form, headers=OURS)).status_code == 404

    on_page(test)


@pytest.mark.parametrize(
    ("headers", "form", "status"),
    [
        ({}, {}, 403),  # no origin: not from a browser's page
        ({"origin": "http://evil.example"}, {}, 403),
        ({"origin": "null"}, {}, 403),
        ({"origin": "http://127.0.0.1:7071"}, {}, 403),  # another program on this machine
        ({**OURS, "sec-fetch-site": "cross-site"}, {}, 403),
        ({**OURS, "host": "evil.example:7070"}, {}, 421),
        (OURS, {"token": "guessed"}, 403),
        (OURS, {"token": ""}, 403),
        (OURS, {"token": "x" * 1_100_000}, 413),
    ],
)
def test_a_change_that_is_not_ours_is_refused(headers: dict[str, str], form: dict[str, str], status: int) -> None:
    async def test(http: httpx.AsyncClient, backend: Backend) -> None:
        asked = {"token": await token(http), **form}
        answer = await http.post("/runs/refund-1042/cancel", data=asked, headers=headers)
        assert answer.status_code == status
        assert (await backend.run("refund-1042")).status is RunStatus.WAITING

    on_page(test)


def test_a_name_that_is_not_ours_is_refused() -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1", "2130706433"):
            assert (await http.get("/runs", headers={"host": host})).status_code == 421
        for host in ("localhost", "127.0.0.1:80", "[::1]:7070", "LOCALHOST:1"):
            assert (await http.get("/runs", headers={"host": host})).status_code == 200

    on_page(test)


def test_other_machines_need_the_password() -> None:
    async def test(http: httpx.AsyncClient, _: Backend) -> None:
        assert (await http.get("/runs")).status_code == 401
        assert (await http.get("/static/page.css")).status_code == 401
        assert (await http.get("/runs", auth=("any", "wrong"))).status_code == 401
        assert (await http.get("/runs", headers={"authorization": "Basic ***"})).status_code == 401
        assert (await http.get("/runs", headers={"authorization": "Bearer open sesame"})).status_code == 401
        headers = {"host": "runs.example"}
        assert (await http.get("/runs", auth=("any", "open sesame"), headers=headers)).status_code == 200

    on_page(test, hosts=(), password="open sesame")
    with pytest.raises(ValueError, match="needs a password"):
        on_page(test, hosts=())


# -- live


def test_a_list_hears_of_a_change_and_of_nothing_it_knows(tmp_path: Path) -> None:
    async def main() -> None:
        async with listened_to(tmp_path) as (backend, http):
            seen = re.search(r'data-seen="(\w+)"', (await http.get("/runs")).text)
            assert seen is not None
            ((first, _),) = await heard(http, "/live/runs", 1)
            assert first == seen[1]  # who says nothing is told the state
            listening = asyncio.create_task(heard(http, f"/live/runs?seen={first}", 1))
            await http.get("/runs")
            assert not listening.done()
            await (await backend.run("refund-1042")).cancel()
            ((second, _),) = await listening
            assert second != first
            missed = await heard(http, "/live/runs?seen=x", 1, {"last-event-id": first})
            assert missed == [(second, "changed")]

    asyncio.run(main())


def test_a_run_is_followed_by_its_stream_and_after_a_break_from_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with listened_to(tmp_path) as (backend, http):
            run = await backend.run("refund-1042")
            shown = re.search(r'data-from="(\d+)"', (await http.get("/runs/refund-1042")).text)
            assert shown is not None
            listening = asyncio.create_task(heard(http, f"/runs/refund-1042/live?from={shown[1]}", 3))
            await http.get("/runs/refund-1042")
            assert not listening.done(), "what the page shows is not told"
            (asked,) = await backend.approvals()
            await backend.approve(asked)
            await run.result()
            items = [(str(item.offset), KINDS[type(item.event)]) async for item in run.stream(int(shown[1]))]
            assert await listening == items[:3]
            for place in range(len(items) - 1):
                header = {"last-event-id": items[place][0]}
                assert await heard(http, "/runs/refund-1042/live?from=0", 1, header) == [items[place + 1]]
            assert items[-1][1] == "run_ended"

    asyncio.run(main())


def test_a_page_hears_of_pieces_and_that_a_failed_run_was_taken_up_again(tmp_path: Path) -> None:
    slow = Slow()
    writer = Agent("writer", model=slow, instructions="", stream=True, retries=0)

    async def main() -> None:
        async with (
            SQLiteBackend(tmp_path / "runs.db", [writer]) as backend,
            served(backend) as address,
            httpx.AsyncClient(base_url=address, timeout=20) as http,
        ):
            run = await (await backend.start(writer, "Go", run_id="w")).ended()
            items = [item async for item in run.stream()]
            told = await heard(http, "/runs/w/live", len(items))
            assert told == [(str(item.offset), KINDS[type(item.event)]) for item in items]
            assert [kind for _, kind in told][-4:] == ["step_began", "delta", "step_ended", "run_ended"]
            listening = asyncio.create_task(heard(http, "/runs/w/live", 4, {"last-event-id": told[-1][0]}))
            slow.broken = False
            await run.retry()
            assert [kind for _, kind in await listening] == ["step_began", "delta", "step_ended", "run_ended"]

    asyncio.run(main())


class Slow:
    """A model that writes a piece of its answer before it fails, until it is mended."""

    name = "slow:1"
    broken = True

    async def complete(self, request: ModelRequest) -> ModelResponse:
        return ModelResponse(message=assistant("written"))

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        yield Delta(kind="text", text="writ")
        if self.broken:
            raise NonRetriableError("broken")
        yield await self.complete(request)


@asynccontextmanager
async def listened_to(path: Path) -> AsyncIterator[tuple[SQLiteBackend, httpx.AsyncClient]]:
    """The engine with the runs, and a client of its page."""
    await make_runs(path / "runs.db")
    async with (
        SQLiteBackend(path / "runs.db", [desk, echo]) as backend,
        served(backend) as address,
        httpx.AsyncClient(base_url=address, timeout=20) as http,
    ):
        yield backend, http


async def heard(
    http: httpx.AsyncClient, path: str, count: int, headers: dict[str, str] | None = None
) -> list[tuple[str, str]]:
    """The ids and the kinds of the next events of a stream that have ids."""
    found: list[tuple[str, str]] = []
    event_id = ""
    async with http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line.startswith("event: ") and event_id:
                found.append((event_id, line.removeprefix("event: ")))
                event_id = ""
            if len(found) == count:
                break
    return found
