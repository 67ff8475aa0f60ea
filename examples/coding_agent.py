"""A coding agent in a scratch directory: its hands are an MCP server, which runs as a program of its own.

Its model answers from a script, so it runs without a key::

    $ python examples/coding_agent.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from durably.backends import SQLiteBackend
from durably.core import Agent, Model, Toolset
from durably.core.messages import ToolResultMessage, UserMessage
from durably.core.model import ModelRequest
from durably.mcp import MCPServer
from durably.testing import ScriptedModel, call

__all__ = ["CHECK", "TASK", "build", "script", "server"]

TASK = "Write add.py with a function add(a, b), so that check.py passes."

CHECK = "from pathlib import Path\nexec(Path('add.py').read_text())\nassert add(2, 2) == 4\nprint('all is well')\n"
"""What the directory holds at the beginning, as check.py."""

WRONG, RIGHT = "def add(a, b):\n    return a - b\n", "def add(a, b):\n    return a + b\n"


def server(directory: Path) -> MCPServer:
    """The MCP server of a directory."""
    program = Path(__file__).with_name("scratch_server.py")
    return MCPServer("scratch", command=[sys.executable, str(program), str(directory)], timeout="90s")


def build(tools: Toolset, model: Model) -> Agent[None]:
    """The agent.

    Args:
        tools: What it works with.
        model: What writes the code.
    """
    return Agent(
        "coder",
        model=model,
        instructions="Write the code that is asked for. Run the checks, and mend it until they pass.",
        tools=[tools],
    )


def script(first: str = WRONG) -> ScriptedModel:
    """What a model might do: read the check, write something wrong, be told so, and mend it.

    Args:
        first: What it writes first.
    """

    def answer(request: ModelRequest) -> Any:
        last = request.messages[-1]
        if isinstance(last, UserMessage):
            return call("read_file", name="check.py")
        said = str(last.content) if isinstance(last, ToolResultMessage) else ""
        checks = [
            each for each in request.messages if isinstance(each, ToolResultMessage) and each.name == "run_checks"
        ]
        if said.startswith("add.py"):
            return call("run_checks")
        if said.startswith("passed"):
            return f"It is done: {said}"
        return call("write_file", name="add.py", text=RIGHT if checks else first)

    return ScriptedModel(answer)


async def main(directory: Path) -> None:
    """Have the code written."""
    scratch = directory / "scratch"
    scratch.mkdir()
    (scratch / "check.py").write_text(CHECK)
    tools = server(scratch)
    agent = build(tools, script())
    async with SQLiteBackend(directory / "runs.db", [agent]) as backend:
        result = await backend.invoke(agent, TASK)
    await tools.aclose()
    for message in result.messages:
        if isinstance(message, ToolResultMessage) and message.name != "read_file":
            print(f"{message.name}: {message.content}")
    print(result.text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
