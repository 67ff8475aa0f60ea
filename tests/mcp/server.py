"""A server of the tests: `python server.py DIRECTORY`. Files there say what it did, and how it is to differ."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

PNG = b"\x89PNG\r\n"


def make(directory: Path) -> MCPServer:
    """The server, as the notes want it."""
    server = MCPServer("shop")
    with (directory / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} ")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def look(item: str) -> dict[str, Any]:
        """Look an item up."""
        return {"item": item, "left": 3}

    @server.tool(structured_output=False)
    def picture() -> list[Any]:
        """Show a picture."""
        return ["A cup:", Image(data=PNG, format="png")]

    @server.tool(annotations=ToolAnnotations(idempotent_hint=False))
    async def order(item: str, ctx: Context) -> str:
        """Order an item."""
        meta = ctx.request_context.meta or {}
        with (directory / "orders").open("a") as orders:
            orders.write(f"{item} {meta.get('durably/idempotency-key')}\n")
        return f"ordered {item}"

    @server.tool(name="shop.say")
    def say(text: str) -> str:
        """Say something."""
        if text == "nothing":
            raise ToolError("nothing to say")
        return text

    if not (directory / "no-die").exists():

        @server.tool()
        def die() -> str:
            """End the process, once."""
            if not (directory / "died").exists():
                (directory / "died").touch()
                os._exit(1)
            return "alive"

    if (directory / "other-look").exists():
        server.remove_tool("look")

        @server.tool(name="look")
        def other(item: str, shelf: int = 0) -> str:
            """Look an item up on a shelf."""
            return f"{item} on {shelf}"

    return server


if __name__ == "__main__":
    make(Path(sys.argv[1])).run()
