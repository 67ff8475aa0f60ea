"""An agent whose tools take files, for any engine: what was said of a path holds when the file has gone or come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import FilePath

from durably.core import (
    APPROVAL_REQUESTED,
    Agent,
    ApprovalRequest,
    Context,
    Function,
    approve,
    function,
    tool,
)
from durably.core.backend import Backend
from durably.core.messages import ToolCall, ToolResultMessage
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call


@tool
def delete(path: FilePath) -> str:
    """Delete a file."""
    path.unlink()
    return f"deleted {path.name}"


@tool(requires_approval=True)
def shred(path: FilePath) -> str:
    """Delete a file, if a person agrees."""
    path.unlink()
    return f"shredded {path.name}"


@function("agreeable", triggers=[APPROVAL_REQUESTED])
async def agreeable(ctx: Context[ApprovalRequest]) -> None:
    await ctx.step.send_event("answer", approve(ctx.input.approval))


def verdicts(directory: Path) -> tuple[Function[Any, Any], ...]:
    """The agent and the person it asks. It deletes two files of four that it names, and then makes the others."""
    paths = {name: directory / name for name in ("a", "b", "missing", "lost")}
    for name in ("a", "b"):
        paths[name].write_text(name)

    def script(request: ModelRequest) -> Any:
        if request.turn == 0:
            return [call("delete", path=str(paths["a"])), call("delete", path=str(paths["missing"]))]
        if request.turn == 1:
            return [call("shred", path=str(paths["b"])), call("shred", path=str(paths["lost"]))]
        if request.turn == 2:
            return [call("delete"), call("delete", path=["x"] * 5_000)]
        for name in ("missing", "lost"):
            paths[name].write_text(name)
        return "done"

    cleaner = Agent("cleaner", model=ScriptedModel(script), instructions="Clean up.", tools=[delete, shred])
    return cleaner, agreeable


async def check_verdicts(backend: Backend, cleaner: Function[Any, Any]) -> None:
    """Run the agent to its end, and read its conversation when every verdict would be another one."""
    run = await backend.start(cleaner, "clean up")
    result = await run.result()
    assert result.text == "done"
    said = [(m.content, m.is_error) for m in result.messages if isinstance(m, ToolResultMessage)]
    gone = "path: Path does not point to a file"
    assert said[:4] == [
        ("deleted a", False),
        (f"invalid arguments for delete: {gone}", True),
        ("shredded b", False),
        (f"invalid arguments for shred: {gone}", True),
    ]
    assert [error for _, error in said[4:]] == [True, True]
    steps = (await run.history()).steps()
    asked = [record.key for record in steps if record.step_id == "ask-shred"]
    assert len(asked) == 1, "nobody is asked about a file that is not there"
    calls = [part for m in result.messages if m.role == "assistant" for part in m.parts if isinstance(part, ToolCall)]
    assert len(calls) == 6
