"""The example program as a whole: message in, tools, three kinds of sub-agents, session, reply out."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Event, MemorySessions, SQLiteSessions, assistant, user
from durably.core.model import ModelRequest, ModelResponse
from durably.testing import ScriptedModel
from durably.testing.crash.engines import Store
from tests.conftest import Open
from tests.killed_at import Killed, KilledAt

ROOT = Path(__file__).parent.parent.parent
ANSWER = "It ships tomorrow. To reset it, hold the button for ten seconds."
TEXTS = sorted([("ann", ANSWER), ("file", "Asked about order 7."), ("file", "Did it arrive?")])


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("handle_message", ROOT / "examples" / "handle_message.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its annotations are looked up
    spec.loader.exec_module(module)
    return module


example = load()


def script(when: str) -> Callable[[ModelRequest], Any]:
    """The example's script, with another time for the reminder."""

    def reply(request: ModelRequest) -> Any:
        said = example.script(request)
        if isinstance(said, list):
            said[-1].arguments["when"] = when
        return said

    return reply


class Channel:
    """Where texts go; it drops a key it has seen."""

    def __init__(self) -> None:
        self.calls = 0
        self.texts: dict[str, tuple[str, str]] = {}

    def __call__(self, where: str, text: str, key: str) -> None:
        self.calls += 1
        self.texts.setdefault(key, (where, text))

    @property
    def seen(self) -> list[tuple[str, str]]:
        return sorted(self.texts.values())


def message(text: str, id: str) -> Event:
    return Event("agent/message.received", {"text": text, "session_key": "ann"}, id=id)


@pytest.mark.asyncio
async def test_a_message_comes_in_and_a_reply_goes_out(open_backend: Open, tmp_path: Path) -> None:
    sessions, channel = SQLiteSessions(tmp_path / "sessions.db"), Channel()
    functions = example.build(ScriptedModel(script("0s")), sessions)
    async with open_backend(functions, resources={"channel": channel}) as backend:
        assert isinstance(backend, MemoryBackend | SQLiteBackend)
        await backend.send(message("Where is order 7?", "m1"))
        await backend.drain()
        assert channel.seen == TEXTS
        (run,) = await backend.runs(function="handle-message")
        result = await run.result()
        steps = [each.key for each in (await run.history()).steps()]
        assert {each.status.value for each in await backend.runs()} == {"completed"}
        assert sorted(each.view.function for each in await backend.runs()) == [
            "caller",
            "clerk",
            "expert",
            "handle-message",
            "reply",
        ]
    assert await sessions.load("ann") == [user("Where is order 7?"), assistant(ANSWER)]
    assert (result.text, result.iterations, result.tool_calls) == (ANSWER, 3, 4)
    assert result.usage.input_tokens == 10 * (3 + 2)  # its own turns and the expert's, whom it waited for
    assert steps[:5] == ["save-incoming", "load-context", "load-history", "think", "tool-get_order"]
    assert sorted(steps[6:-3]) == [
        "gather[0]/tool-ask_expert",
        "gather[1]/tool-start_clerk",
        "gather[2]/tool-schedule_caller",
        "gather[2]/when-schedule_caller",
    ]
    assert steps[-3:] == ["think:2", "save-response", "reply"]


class HeldUp:
    """A model that does not answer the expert of the first run until it is let go."""

    name = "held-up"

    def __init__(self) -> None:
        self.entered, self.release = asyncio.Event(), asyncio.Event()
        self._script = ScriptedModel(script("0s"))

    async def complete(self, request: ModelRequest) -> ModelResponse:
        if request.system == "Answer from the manual." and not self.entered.is_set():
            self.entered.set()
            await self.release.wait()
        return await self._script.complete(request)


@pytest.mark.asyncio
async def test_a_second_message_of_the_session_cancels_the_first_run(open_backend: Open) -> None:
    sessions, channel, model = MemorySessions(), Channel(), HeldUp()
    async with open_backend(example.build(model, sessions), resources={"channel": channel}) as backend:
        assert isinstance(backend, MemoryBackend | SQLiteBackend)
        await backend.send(message("Where is it?", "m1"))
        await model.entered.wait()
        await backend.send(message("I mean order 7.", "m2"))
        model.release.set()
        await backend.drain()
        statuses = [(each.view.function, each.status.value) for each in await backend.runs()]
    assert statuses.count(("handle-message", "cancelled")) == statuses.count(("handle-message", "completed")) == 1
    assert statuses.count(("expert", "cancelled")) == statuses.count(("expert", "completed")) == 1  # it came along
    assert [text for where, text in channel.seen if where == "ann"] == [ANSWER]
    assert await sessions.load("ann") == [user("Where is it?"), user("I mean order 7."), assistant(ANSWER)]


@pytest.mark.asyncio
async def test_messages_of_other_sessions_do_not_disturb() -> None:
    sessions, channel = MemorySessions(), Channel()
    functions = example.build(ScriptedModel(script("1 day")), sessions)
    async with MemoryBackend(functions, resources={"channel": channel}) as backend:
        other = Event("agent/message.received", {"text": "Hello", "session_key": "bob"}, id="m2")
        await backend.send(message("Hello", "m1"), other, message("Hello", "m1"))  # one of them twice
        await backend.drain()
        runs = await backend.runs(function="handle-message")
    assert [each.status.value for each in runs] == ["completed", "completed"]
    assert sorted(where for where, _ in channel.seen) == ["ann", "bob", "file", "file", "file", "file"]


class World:
    """What outlives a crash of the program."""

    def __init__(self, engine: str, store: Store) -> None:
        self.engine, self.store = engine, store
        self.sessions, self.channel = MemorySessions(), Channel()

    def open(self) -> MemoryBackend | SQLiteBackend:
        clock, resources = VirtualClock(), {"channel": self.channel}
        functions = example.build(ScriptedModel(script("1 day")), self.sessions, now=clock.now)
        if self.engine == "memory":
            return MemoryBackend(functions, journal=self.store.journal, clock=clock, resources=resources)
        return SQLiteBackend(self.store.path / "runs.db", functions, clock=clock, resources=resources)

    async def live(self, kill: int | None) -> int:
        """One life of the program; how many points it passed."""
        backend = self.open()
        backend.probe = probe = KilledAt(kill)
        try:
            async with backend:
                await backend.send(message("Where is order 7?", "m1"))
                await backend.drain()
        except Killed:
            pass
        return probe.passed

    async def outcome(self) -> dict[str, str | None]:
        async with self.open() as backend:
            return {each.id: (await each.refresh()).view.output for each in await backend.runs()}


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_crash_anywhere_loses_nothing_and_doubles_nothing(engine: str) -> None:
    with Store() as store:
        world = World(engine, store)
        points = await world.live(None)
        outcome = await world.outcome()
        assert world.channel.calls == 3
    for kill in range(1, points + 1):
        with Store() as store:
            world = World(engine, store)
            await world.live(kill)
            await world.live(None)
            assert await world.outcome() == outcome, f"after a crash at point {kill}"
        assert world.channel.seen == TEXTS
        assert world.channel.calls <= 4  # only what was cut off ran again
        assert await world.sessions.load("ann") == [user("Where is order 7?"), assistant(ANSWER)]


@pytest.mark.parametrize("text", ["Asked about order 7.", ANSWER, "Did it arrive?"])
def test_the_process_is_killed_in_a_body_and_started_again(text: str, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "article_child.py"), str(tmp_path)]
    killed = subprocess.run([*command, text], capture_output=True, text=True, timeout=50, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    names = ["caller", "clerk", "expert", "handle-message", "reply"]
    assert json.loads(done.stdout) == [[name, "completed"] for name in names]
    lines = [json.loads(line) for line in (tmp_path / "channel").read_text().splitlines()]
    assert sorted({(where, said, key) for where, said, key in lines}) == sorted(
        (where, said, key) for where, said in TEXTS for key in {line[2] for line in lines if line[1] == said}
    )
    assert len({key for *_, key in lines}) == 3  # what ran twice had one key both times
    assert [said for _, said, _ in lines].count(text) == 2
    assert asyncio.run(SQLiteSessions(tmp_path / "sessions.db").load("ann")) == [
        user("Where is order 7?"),
        assistant(ANSWER),
    ]


def test_it_runs_as_it_stands() -> None:
    path = ROOT / "examples" / "handle_message.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == sorted(f"[{where}] {text}" for where, text in TEXTS)
