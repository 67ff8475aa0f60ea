"""MCP servers as toolsets: over both transports, over crashes, and when they change."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Agent, DefinitionError, InvokeError, SerializationError, tool
from durably.core.errors import Signal
from durably.core.messages import FilePart, TextPart
from durably.core.steps import Point
from durably.mcp import MCPServer
from durably.testing import ScriptedModel, call
from tests.mcp import server as shop
from tests.mcp.served import served, until

pytestmark = pytest.mark.asyncio

SCRIPT = Path(shop.__file__)


def stdio(directory: Path, **options: Any) -> MCPServer:
    return MCPServer("shop", command=[sys.executable, str(SCRIPT), str(directory)], **options)


def over_http(directory: Path) -> AbstractAsyncContextManager[str]:
    """The address of a server of the tests in this process."""
    return served(shop.make(directory))


def agent(server: Any, *script: Any) -> Agent:
    return Agent("clerk", model=ScriptedModel(*script, "Done."), instructions="", tools=[server])


def told(result: Any) -> list[Any]:
    return [(each.content, each.is_error, each.metadata) for each in result.messages if each.role == "tool"]


CALLS = (
    call("look", item="cup"),
    [call("picture"), call("shop_say", text="hi")],
    call("order", item="tea"),
    call("shop_say", text="nothing"),
    call("look"),
)


async def check_calls(server: MCPServer, directory: Path) -> None:
    clerk = agent(server, *CALLS)
    async with MemoryBackend([clerk]) as backend:
        run = await backend.start(clerk, "go")
        result = await run.result()
        keys = [record.key for record in (await run.history()).steps()]
        text = (await run.history()).to_jsonl()
    await server.aclose()
    look, picture, said, order, nothing, wrong = told(result)
    assert look[2] == {"structured_content": {"item": "cup", "left": 3}}
    png = base64.b64encode(shop.PNG).decode()
    assert picture == ([TextPart(text="A cup:"), FilePart(media_type="image/png", data=png)], False, None)
    assert said[:2] == ("hi", False)
    assert order[:2] == ("ordered tea", False)
    assert nothing[1:2] == (True,)
    assert "nothing to say" in nothing[0]
    assert wrong[1:2] == (True,)
    assert "item" in wrong[0]
    (line,) = (directory / "orders").read_text().splitlines()
    assert len(line.removeprefix("tea ")) == 32, "the server is told the idempotency key of the step"
    assert keys[:3] == ["load-context", "list-shop", "load-history"]
    assert text.count("Look an item up.") == 1, "the list is recorded once"
    model = clerk.model
    assert isinstance(model, ScriptedModel)
    assert [each.name for each in model.requests[0].tools] == ["look", "picture", "order", "shop_say", "die"]


async def test_a_program_on_standard_input_and_output(tmp_path: Path) -> None:
    server = stdio(tmp_path)
    await check_calls(server, tmp_path)
    assert len(pids(tmp_path)) == 1, "one connection served all steps"

    @tool
    async def end() -> str:
        """End the server behind the client's back."""
        os.kill(pids(tmp_path)[-1], signal.SIGKILL)
        return "ended"

    model = ScriptedModel(call("die"), call("end"), call("order", item="milk"), "Done.")
    clerk = Agent("clerk", model=model, instructions="", tools=[server, end])
    async with MemoryBackend([clerk]) as backend:
        run = await backend.start(clerk, "go")
        result = await run.result()
        statuses = [record.status for record in await run.history() if record.key == "tool-die"]
    await server.aclose()
    assert [content for content, _, _ in told(result)] == ["alive", "ended", "ordered milk"]
    assert statuses == ["retrying", "completed"], "the server died in the first attempt, and was started again"
    assert len((tmp_path / "orders").read_text().splitlines()) == 2, "what may run once was not tried on what was lost"
    assert len(pids(tmp_path)) == 4, "its first connection was closed, and two were lost"


def pids(directory: Path) -> list[int]:
    return [int(each) for each in (directory / "starts").read_text().split()]


async def test_a_server_over_http(tmp_path: Path) -> None:
    async with over_http(tmp_path) as url:
        await check_calls(MCPServer("shop", url=url, headers={"x-token": "secret"}), tmp_path)


class Gone(Signal):
    pass


def lose(key: str) -> Any:
    """A probe that takes the worker away when a step is committed."""

    def probe(point: Point) -> None:
        if (point.name, point.key) == ("after_commit", key):
            raise Gone

    return probe


async def test_another_worker_goes_on_with_the_list_that_the_run_began_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = (call("order", item="tea"), call("die"), call("look", item="cup"))
    async with over_http(tmp_path) as url:
        server = MCPServer("shop", url=url)
        first = agent(server, *script)
        async with SQLiteBackend(tmp_path / "runs.db", [first]) as backend:
            backend.probe = lose("tool-order")
            run = await backend.start(first, "go", run_id="r")
            with pytest.raises(Gone):
                await run.result()
        await server.aclose()
    (tmp_path / "no-die").touch()
    (tmp_path / "other-look").touch()
    async with over_http(tmp_path) as url:
        server = MCPServer("shop", url=url)
        second = agent(server, *script)
        async with SQLiteBackend(tmp_path / "runs.db", [second]) as backend:
            with caplog.at_level(logging.WARNING, logger="durably"):
                result = await (await backend.run("r")).result()
        await server.aclose()
    order, die, look = told(result)
    assert order[0] == "ordered tea"
    assert die[:2] == ("die is not there any more: the MCP server 'shop' has changed", True)
    assert look[0] == "cup on 0"
    assert "die is not there any more" in caplog.text
    assert "the parameters of look, of the MCP server 'shop', have changed since run r listed them" in caplog.text
    assert len((tmp_path / "orders").read_text().splitlines()) == 1
    model = second.model
    assert isinstance(model, ScriptedModel)
    shelf = [each for each in model.requests[0].tools if each.name == "look"]
    assert list(shelf[0].parameters["properties"]) == ["item"], "what the model sees stays as it was"


async def test_an_agent_gets_the_tools_that_it_is_to_get(tmp_path: Path) -> None:
    async with over_http(tmp_path) as url:
        server = MCPServer(
            "shop",
            url=url,
            prefix="shop_",
            tools=["look", "order"],
            requires_approval=["order"],
            approval_timeout="1m",
            effect="pure",
        )
        clerk = agent(server, call("shop_order", item="tea"))
        async with MemoryBackend([clerk]) as backend:
            run = await backend.start(clerk, "go")
            result = await run.result()
            (order,) = [each for each in await listed(run) if each["name"] == "shop_order"]
        await server.aclose()
    assert told(result)[0][0] == "shop_order was not run: it needs a person's approval, and nobody answered in time"
    assert not (tmp_path / "orders").exists()
    del order["description"], order["parameters"]
    assert order == {
        "name": "shop_order",
        "source_name": "order",
        "effect": "pure",
        "requires_approval": True,
        "approval_timeout": 60.0,
    }
    model = clerk.model
    assert isinstance(model, ScriptedModel)
    assert [each.name for each in model.requests[0].tools] == ["shop_look", "shop_order"]


async def test_a_person_may_change_the_arguments_of_a_call(tmp_path: Path) -> None:
    async with over_http(tmp_path) as url:
        server = MCPServer("shop", url=url, requires_approval=["order"])
        async with MemoryBackend([clerk := agent(server, call("order", item="tea"))]) as backend:
            run = await backend.start(clerk, "go")
            while not (pending := await backend.approvals(run=run.id)):  # noqa: ASYNC110 - a page would ask again too
                await asyncio.sleep(0.01)
            with pytest.raises(SerializationError, match=r"arguments\.item: 3 is no string"):
                await backend.approve(pending[0], arguments={"item": 3})
            await backend.approve(pending[0], arguments={"item": "cocoa"})
            result = await run.result()
        await server.aclose()
    assert told(result)[0][0].splitlines()[-1] == "ordered cocoa"
    assert (tmp_path / "orders").read_text().startswith("cocoa ")


async def listed(run: Any) -> list[dict[str, Any]]:
    (record,) = [record for record in (await run.history()).steps() if record.key == "list-shop"]
    found: list[dict[str, Any]] = json.loads(record.output)
    return found


async def test_what_the_server_says_of_its_tools_decides_how_they_run(tmp_path: Path) -> None:
    async with over_http(tmp_path) as url:
        server = MCPServer("shop", url=url, effect={"picture": "pure"}, headers="token")
        clerk = agent(server)
        async with MemoryBackend([clerk], resources={"token": {"x-token": "secret"}}) as backend:
            run = await backend.start(clerk, "go")
            await run.result()
            effects = {each["name"]: each.get("effect") for each in await listed(run)}
            assert "secret" not in (await run.history()).to_jsonl()
        await server.aclose()
        async with MemoryBackend([clerk]) as backend:
            with pytest.raises(InvokeError, match="an MCP server needs the resource 'token'"):
                await backend.invoke(clerk, "go")
        missing = agent(MCPServer("shop", url=url, tools=["look", "fly"]))
        async with MemoryBackend([missing]) as backend:
            with pytest.raises(InvokeError, match="has no tool 'fly'; its tools are: die, look"):
                await backend.invoke(missing, "go")
    assert effects == {"look": "pure", "picture": "pure", "order": "at_most_once", "shop_say": None, "die": None}


@pytest.mark.parametrize("options", [{"command": ["/nowhere/server"]}, {"url": "http://127.0.0.1:9/mcp"}], ids=str)
async def test_a_server_that_cannot_be_reached_is_named(options: dict[str, Any]) -> None:
    server = MCPServer("shop", **options)
    clerk = Agent("clerk", model=ScriptedModel("Done."), instructions="", tools=[server], retries=0)
    async with MemoryBackend([clerk]) as backend:
        with pytest.raises(InvokeError, match=r"ConnectionError: the MCP server 'shop' \(.*\) failed: "):
            await backend.invoke(clerk, "go")


async def test_nothing_is_asked_of_a_connection_that_is_being_closed(tmp_path: Path) -> None:
    server = stdio(tmp_path)
    first, second = agent(server, call("look", item="cup")), agent(server, call("look", item="cup"))
    ours = asyncio.all_tasks()
    async with MemoryBackend([first]) as backend:
        await backend.invoke(first, "go")
    left = asyncio.all_tasks() - ours
    assert left, "the connection is kept for the next call"
    for task in left:
        task.cancel()
    await asyncio.sleep(0)  # they have begun to end; the program takes its time
    assert not all(task.done() for task in left)
    async with MemoryBackend([second]) as backend:
        run = await backend.start(second, "go")
        await run.result()
        statuses = [record.status for record in await run.history()]
    await server.aclose()
    assert "retrying" not in statuses


async def test_a_connection_that_nobody_uses_ends(tmp_path: Path) -> None:
    async with over_http(tmp_path) as url:
        server = MCPServer("shop", url=url, idle=0)
        clerk = agent(server, call("look", item="cup"))
        async with MemoryBackend([clerk]) as backend:
            await backend.invoke(clerk, "go")
        (connection,) = server._connections.values()
        await until(lambda: connection.ended and connection._task.done())


WRONG: list[tuple[str, Any]] = [
    ("give it either command=", partial(MCPServer, "shop")),
    ("give it either command=", partial(MCPServer, "shop", command=["a"], url="http://x")),
    ("command is a list", partial(MCPServer, "shop", command="python server.py")),
    ("headers= are for a url=", partial(MCPServer, "shop", command=["a"], headers={})),
    ("env= and cwd= are for a program", partial(MCPServer, "shop", url="http://x", env={})),
    ("begins with http:// or https://", partial(MCPServer, "shop", url="stdio:x")),
    ("tools is a list of names", partial(MCPServer, "shop", url="http://x", tools="look")),
    ("MCPServer 'shop': timeout", partial(MCPServer, "shop", url="http://x", timeout="soon")),
]


@pytest.mark.parametrize(("sentence", "define"), WRONG)
async def test_what_cannot_work_is_refused_where_it_is_defined(sentence: str, define: Any) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        define()


async def test_it_says_who_it_is() -> None:
    assert repr(MCPServer("shop", url="http://x/mcp?token=1")) == "MCPServer('shop', http://x/mcp)"


async def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['mcp'] = None; import durably.mcp"
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
    _, said = await done.communicate()
    assert said.decode().splitlines()[-1] == "ImportError: MCPServer needs the package mcp: pip install 'durably[mcp]'"
