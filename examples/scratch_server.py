"""An MCP server for one directory: it writes and reads files there, and runs the tests in it.

$ python examples/scratch_server.py DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

__all__ = ["make"]


def make(directory: Path) -> MCPServer:
    """The server of a directory."""
    server = MCPServer("scratch")

    def inside(name: str) -> Path:
        path = (directory / name).resolve()
        if not path.is_relative_to(directory.resolve()):
            raise ToolError(f"{name} is outside the directory")
        return path

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True))
    def write_file(name: str, text: str) -> str:
        """Write a file. What was in it before is gone."""
        path = inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return f"{name}: {len(text)} characters"

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def read_file(name: str) -> str:
        """Read a file."""
        path = inside(name)
        if not path.is_file():
            raise ToolError(f"there is no file {name}")
        return path.read_text()

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def run_checks() -> str:
        """Run check.py, and say what it said."""
        done = subprocess.run(
            [sys.executable, "-I", "-B", "check.py"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["nothing"]
        return f"{'passed' if done.returncode == 0 else 'failed'}: {said[0]}"

    return server


if __name__ == "__main__":
    make(Path(sys.argv[1])).run()
