"""A process that runs the example program on SQLite, and kills itself in a tool of a sub-agent if told to.

Called as: article_child.py DIRECTORY [TEXT]. The channel is a file of lines; a TEXT that is to be written kills the
process right after it was. Ends when three texts have been written.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import Event, SQLiteSessions
from durably.testing import ScriptedModel

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "examples"))
example = import_module("handle_message")

DIRECTORY, *KILL = map(str, sys.argv[1:])


def channel(where: str, text: str, key: str) -> None:
    with (Path(DIRECTORY) / "channel").open("a") as file:
        file.write(json.dumps([where, text, key]) + "\n")
    if [text] == KILL:
        os.kill(os.getpid(), signal.SIGKILL)


async def run() -> None:
    directory = Path(DIRECTORY)
    functions = example.build(ScriptedModel(example.script), SQLiteSessions(directory / "sessions.db"))
    async with SQLiteBackend(directory / "runs.db", functions, resources={"channel": channel}) as backend:
        message = example.Incoming(text="Where is order 7?", session_key="ann")
        await backend.send(Event("agent/message.received", message.model_dump(), id="message-1"))
        await backend.drain()
        print(json.dumps(sorted([each.view.function, each.status.value] for each in await backend.runs())))


asyncio.run(run())
