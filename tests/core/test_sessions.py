"""Session stores: in order, once each key, whatever crashes and whoever else writes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.core import (
    Agent,
    AgentInput,
    InvokeError,
    JSONLSessions,
    MemorySessions,
    RunStatus,
    SessionError,
    SessionStore,
    Singleton,
    SQLiteSessions,
    assistant,
    tool,
    user,
)
from durably.core.errors import Signal
from durably.core.messages import (
    AssistantMessage,
    FilePart,
    Message,
    OpaquePart,
    SessionEntry,
    SessionNote,
    SessionPrefix,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.sessions import SessionReader, joined, jsonl
from durably.core.sessions import prefix as prefix_module
from durably.core.steps import Point
from durably.testing import ScriptedModel, call, crash_matrix

CHILD = Path(__file__).parent / "session_child.py"

EVERYTHING: list[Message] = [
    UserMessage(content=[TextPart(text="look\n\u2028 ü 🙂"), FilePart(media_type="image/png", data="aGk=")]),
    AssistantMessage(
        parts=[
            ThinkingPart(text="hm", signature="sig"),
            ToolCall(id="1", name="get", arguments={"n": [1, 2.5, None]}, native={"k": "v"}),
            OpaquePart(data={"x": "y"}),
        ],
        provider="anthropic",
    ),
    ToolResultMessage(call_id="1", name="get", content="no", is_error=True),
    assistant("done"),
]

Make = Callable[[Path], SessionStore]
FILES: dict[str, Make] = {
    "sqlite": lambda path: SQLiteSessions(path / "sessions.db"),
    "jsonl": lambda path: JSONLSessions(path / "sessions"),
}
files = pytest.mark.parametrize("make", FILES.values(), ids=FILES)


def file_of(path: Path) -> Path:
    """The one file a store made."""
    (found,) = [each for each in path.rglob("*") if each.is_file()]
    return found


@files
@pytest.mark.asyncio
async def test_messages_come_back_as_they_were(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    assert isinstance(store, SessionStore)
    assert await store.load("s") == []
    await store.append("s", EVERYTHING, key="1")
    await store.append("s", [user("more")], key="2")
    await store.append("other", [user("else")], key="1")
    await store.append("s", [user("again")], key="1")
    again = make(tmp_path)
    assert await again.load("s") == [*EVERYTHING, user("more")]
    assert await again.load("other") == [user("else")]
    assert await again.load("nobody") == []


@files
@pytest.mark.asyncio
async def test_only_its_owner_can_read_it(make: Make, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await make(tmp_path).append("s", [user("secret")], key="1")
    finally:
        os.umask(before)
    made = file_of(tmp_path)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    if made.parent != tmp_path:
        assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700


TEXTS = st.text(max_size=8)
APPENDS = st.tuples(st.sampled_from(["a", "A", "a/b", "../a", "a b"]), st.integers(0, 3), st.lists(TEXTS, max_size=3))
TEARS = st.integers(1, 12)


@files
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=st.lists(APPENDS | TEARS, max_size=8))
def test_a_store_in_files_does_what_the_one_in_memory_does(make: Make, actions: list[Any]) -> None:
    oracle = MemorySessions()

    async def run(directory: Path) -> None:
        keys = set()
        for action in actions:
            if isinstance(action, int):  # a crash left the beginning of a line in every file there is
                for torn in directory.rglob("*.jsonl"):
                    with torn.open("ab") as file:
                        file.write(b'{"v":1,"session"'[:action])
                continue
            session, number, texts = action
            keys.add(session)
            for store in (oracle, make(directory)):
                await store.append(session, [user(text) for text in texts], key=f"key-{number}")
        for session in keys:
            assert await make(directory).load(session) == await oracle.load(session)

    directory = Path(tempfile.mkdtemp())
    try:
        asyncio.run(run(directory))
    finally:
        shutil.rmtree(directory)


# -- several writers


def start(store: str, path: Path, writer: str, count: int, *place: str) -> subprocess.Popen[str]:
    where = path / ("sessions" if store == "jsonl" else "sessions.db")
    command = [sys.executable, str(CHILD), store, str(where), writer, str(count), *place]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def messages_of(entries: Sequence[SessionEntry]) -> list[Message]:
    return [entry for entry in entries if not isinstance(entry, SessionNote)]


def pairs(messages: Sequence[SessionEntry]) -> list[str]:
    """The keys of the appends, in order, each of which must have left its two messages side by side."""
    asked = [str(message.content).split()[1] for message in messages if isinstance(message, UserMessage)]
    assert messages == [message for key in asked for message in (user(f"ask {key} ü"), assistant(f"answer {key}"))]
    return asked


@pytest.mark.parametrize("store", FILES)
def test_processes_that_write_at_once_take_turns(store: str, tmp_path: Path) -> None:
    writers = {name: start(store, tmp_path, name, 15) for name in ("a", "b", "c")}
    for process in writers.values():
        _, errors = process.communicate(timeout=50)
        assert (process.returncode, errors) == (0, "")
    seen = pairs(asyncio.run(FILES[store](tmp_path).load("s")))
    for name in writers:
        assert [key for key in seen if key[0] == name] == [f"{name}-{number}" for number in range(15)]
    assert len(seen) == 45


@files
@pytest.mark.asyncio
async def test_tasks_that_write_at_once_take_turns(make: Make, tmp_path: Path) -> None:
    stores = [make(tmp_path), make(tmp_path)]
    await asyncio.gather(
        *(
            stores[n % 2].append("s", [user(f"ask {n % 8} ü"), assistant(f"answer {n % 8}")], key=str(n % 8))
            for n in range(16)
        )
    )
    assert sorted(pairs(await stores[0].load("s"))) == [str(n) for n in range(8)]


@pytest.mark.asyncio
async def test_a_writer_of_lines_is_alone_from_its_look_to_its_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, inside, most = jsonl._read, 0, 0

    def look(file: int) -> bytes:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)  # long enough for the others to come in, if they can
        inside -= 1
        return read(file)

    monkeypatch.setattr(jsonl, "_read", look)
    store = JSONLSessions(tmp_path)
    await asyncio.gather(*(store.append("s", [user("hi")], key="1") for _ in range(8)))
    assert most == 1
    assert await store.load("s") == [user("hi")]


# -- crashes

KILLS = [
    ("jsonl", "half a line", False),
    ("jsonl", "no line break", True),
    ("jsonl", "before fsync", True),
    ("jsonl", "before any fsync", True),
    ("jsonl", "after return", True),
    ("sqlite", "before BEGIN", False),
    ("sqlite", "before INSERT", False),
    ("sqlite", "after INSERT", False),
    ("sqlite", "after COMMIT", True),
    ("sqlite", "after return", True),
]


@pytest.mark.parametrize(("store", "place", "written"), KILLS, ids=[f"{store}-{place}" for store, place, _ in KILLS])
def test_killed_between_write_and_return(store: str, place: str, written: bool, tmp_path: Path) -> None:
    process = start(store, tmp_path, "a", 3, place)
    acknowledged, errors = process.communicate(timeout=50)
    assert process.returncode == -signal.SIGKILL, errors
    assert acknowledged.split() == ["a-0", "a-1"]
    expected = ["a-0", "a-1", "a-2"] if written else ["a-0", "a-1"]
    assert pairs(asyncio.run(FILES[store](tmp_path).load("s"))) == expected
    process = start(store, tmp_path, "a", 4)  # everything again, as a step does, and then one more
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 0, errors
    assert pairs(asyncio.run(FILES[store](tmp_path).load("s"))) == ["a-0", "a-1", "a-2", "a-3"]


@pytest.mark.parametrize("store", FILES)
def test_killed_at_any_moment(store: str, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for life, read in enumerate([1, 4, 9]):
        with start(store, tmp_path, f"{life}", 10_000) as process:
            assert process.stdout is not None
            acknowledged += [process.stdout.readline().strip() for _ in range(read)]
            process.kill()
            # Not by communicate(): it would pass over lines that came along with an earlier one.
            acknowledged += process.stdout.read().split()
        seen = pairs(asyncio.run(FILES[store](tmp_path).load("s")))
        assert [key for key in seen if key in set(acknowledged)] == acknowledged
        assert len(set(seen)) == len(seen) <= len(acknowledged) + life + 1  # at most one more each life


class Killed(Signal):
    """The process is gone."""


@files
@pytest.mark.asyncio
async def test_a_crash_after_the_effect_doubles_no_message(make: Make, tmp_path: Path) -> None:
    journal, store = MemoryJournal(), make(tmp_path)
    agent = Agent("a", model=ScriptedModel("hello"), instructions="", sessions=store)

    def probe(point: Point) -> None:
        if (point.name, point.key) == ("after_effect", "save-session"):
            raise Killed

    backend = MemoryBackend([agent], journal=journal)
    backend.probe = probe
    asked = AgentInput(message="hi", session_key="s")
    with pytest.raises(Killed):
        async with backend:
            await backend.invoke(agent, asked, run_id="r")
    assert await store.load("s") == [user("hi"), assistant("hello")]
    async with MemoryBackend([agent], journal=journal) as second:
        await second.invoke(agent, asked, run_id="r")
    assert await store.load("s") == [user("hi"), assistant("hello")]


@files
@pytest.mark.asyncio
async def test_history_is_loaded_in_its_step_and_not_again_on_replay(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.append("s", [user("I am Ann"), assistant("hello Ann")], key="before")
    model = ScriptedModel("hello", "Ann")
    agent = Agent("a", model=model, instructions="", sessions=store)
    async with SQLiteBackend(tmp_path / "runs.db", [agent], evict="always") as backend:
        run = await backend.start(agent, AgentInput(message="Who am I?", session_key="s"))
        assert (await run.result()).text == "Ann"
        loaded = [each.value for each in await run.history() if each.key == "load-history"]
    (read,) = loaded
    assert (read["appends"], read["turns"]) == (1, 1)
    assert "Ann" not in str(read), "a record says how far the run has read, not what"
    assert [each.role for each in model.requests[0].messages] == ["user", "assistant", "user"]


# -- what a session keeps of runs that did not end well


def cut_off(message: Message) -> bool:
    return isinstance(message, ToolResultMessage) and message.is_error and "cut off" in str(message.content)


@files
@pytest.mark.asyncio
@pytest.mark.parametrize("save_turns", [True, False])
async def test_a_failed_run_leaves_what_was_said(make: Make, save_turns: bool, tmp_path: Path) -> None:
    store, model = make(tmp_path), ScriptedModel(call("look"), call("look"), "hello again")

    @tool(on_error="raise", retries=0)
    def look() -> str:
        raise ValueError("no")

    agent = Agent("a", model=model, instructions="", sessions=store, save_turns=save_turns, tools=[look], retries=0)
    async with MemoryBackend([agent]) as backend:
        with pytest.raises(InvokeError):
            await backend.invoke(agent, AgentInput(message="I am Ann", session_key="s"))
        said = await store.load("s")
        assert said[0] == user("I am Ann")
        assert [message.role for message in said[1:]] == (["assistant"] if save_turns else [])
        model.requests.clear()
        with pytest.raises(InvokeError):
            await backend.invoke(agent, AgentInput(message="Who am I?", session_key="s"))
    seen = model.requests[0].messages
    if save_turns:
        assert [message.role for message in seen] == ["user", "assistant", "tool", "user"]
        assert cut_off(seen[2])
    else:
        assert seen == [user("I am Ann\n\nWho am I?")], "two user messages in a row would be refused by some providers"


@files
@pytest.mark.asyncio
async def test_a_cancelled_run_leaves_what_was_said(make: Make, tmp_path: Path) -> None:
    store, model = make(tmp_path), ScriptedModel(call("ask"), "It was Ann who asked.")
    agent = Agent(
        "a",
        model=model,
        instructions="",
        sessions=store,
        tools=[tool(ask, requires_approval=True)],
        singleton=Singleton(key="session_key", mode="cancel"),
    )
    async with MemoryBackend([agent]) as backend:
        first = await backend.start(agent, AgentInput(message="I am Ann", session_key="s"))
        await backend.drain()
        result = await backend.invoke(agent, AgentInput(message="Who was it?", session_key="s"))
        assert (await first.refresh()).status is RunStatus.CANCELLED
    assert result.text == "It was Ann who asked."
    seen = model.requests[1].messages
    assert [message.role for message in seen] == ["user", "assistant", "tool", "user"]
    assert cut_off(seen[2])
    assert [message.role for message in await store.load("s")] == ["user", "assistant", "user", "assistant"]


def ask() -> str:
    return "yes"


@files
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_session_is_the_same_wherever_its_run_crashes(make: Make, backend: str, tmp_path: Path) -> None:
    places = iter(range(10_000))

    def world() -> tuple[Agent, SessionStore]:
        directory = tmp_path / str(next(places))
        directory.mkdir()
        store = make(directory)
        model = ScriptedModel([call("ask"), call("ask")], call("ask"), "done")
        return Agent("a", model=model, instructions="", sessions=store, tools=[ask]), store

    async def saved(store: SessionStore) -> list[Any]:
        return [message.model_dump() for message in await store.load("s")]

    asked = AgentInput(message="hi", session_key="s")
    report = await crash_matrix(world, asked, state=saved, backend=backend)
    assert report.ok, report
    steps = [step.key for step in report.steps]
    assert [key for key in steps if key.startswith("save")] == [
        "save-message",
        "save-turn",
        "save-turn:1",
        "save-session",
    ]


class _Before(Agent):
    """An agent as it was when the history was recorded as messages."""

    async def load_history(self, session_key: str | None) -> list[Message]:
        assert isinstance(self.sessions, SessionStore)
        assert session_key is not None
        return messages_of(await self.sessions.load(session_key))


@files
@pytest.mark.asyncio
async def test_a_run_whose_history_was_recorded_whole_goes_on(make: Make, tmp_path: Path) -> None:
    store, journal = make(tmp_path), MemoryJournal()
    await store.append("s", [user("I am Ann"), assistant("hello Ann")], key="before")
    asked = AgentInput(message="ask", session_key="s")

    def agent_of(kind: type[Agent]) -> Agent:
        model = ScriptedModel("hello", call("ask"), "Ann")
        return kind("a", model=model, instructions="", sessions=store, tools=[ask])

    def probe(point: Point) -> None:
        if (point.name, point.key) == ("after_commit", "tool-ask"):
            raise Killed

    first = MemoryBackend([before := agent_of(_Before)], journal=journal)
    first.probe = probe
    with pytest.raises(Killed):
        async with first:
            await first.invoke(before, asked, run_id="r")
    async with MemoryBackend([now := agent_of(Agent)], journal=journal) as second:
        run = await second.start(now, asked, run_id="r")
        result = await run.result()
        keys = [record.key for record in (await run.history()).steps()]
    assert keys == ["load-context", "load-history", "think", "tool-ask", "think:1", "save-session"]
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert [message.role for message in await store.load("s")][2:] == ["user", "assistant", "tool", "assistant"]


# -- a session is read once, and what is new


@files
@pytest.mark.asyncio
async def test_a_session_that_was_changed_meanwhile_is_refused(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.append("s", [user("I am Ann")], key="1")
    reader = SessionReader(store)
    prefix = await reader.read("s")
    assert await reader.messages(prefix) == [user("I am Ann")]
    file_of(tmp_path).unlink()
    await store.append("s", [user("I am Bob")], key="1")
    with pytest.raises(SessionError, match="'s' is not what this run has read: its first 1 appends"):
        await SessionReader(make(tmp_path)).messages(prefix)
    assert await reader.messages(await reader.read("s")) == [user("I am Bob")], "what was deleted is not remembered"
    file_of(tmp_path).unlink()
    assert (await reader.read("s")).appends == 0


class _TwoMethods:
    """A store of a user's own, with no more than the port asks for."""

    def __init__(self, store: MemorySessions) -> None:
        self.append, self.load = store.append, store.load


STEPS = st.tuples(st.sampled_from(["append", "read", "forget"]), st.sampled_from("ab"), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(STEPS, max_size=30), small=st.booleans(), two_methods=st.booleans())
def test_a_reader_sees_what_is_there(actions: list[tuple[str, str, int]], small: bool, two_methods: bool) -> None:
    async def run() -> None:
        store = MemorySessions()
        reader = SessionReader(_TwoMethods(store) if two_methods else store)
        read: list[tuple[SessionPrefix, list[Message]]] = []
        for number, (action, key, count) in enumerate(actions):
            if action == "append":
                await store.append(key, [user(str(count))] * count, key=str(number))
            elif action == "forget":
                store.__init__()  # type: ignore[misc]
                read = [each for each in read if not each[0].appends]
            else:
                read.append((await reader.read(key), messages_of(await store.load(key))))
            for prefix, messages in read:
                assert await reader.messages(prefix) == messages

    bound = prefix_module.CACHED_MESSAGES
    prefix_module.CACHED_MESSAGES = 2 if small else bound
    try:
        asyncio.run(run())
    finally:
        prefix_module.CACHED_MESSAGES = bound


CALLS = st.lists(st.sampled_from("abc"), max_size=3, unique=True)
SAID = st.one_of(
    st.sampled_from(["hi", "ho"]).map(user),
    CALLS.map(lambda ids: AssistantMessage(parts=[ToolCall(id=id, name="t", arguments={}) for id in ids])),
    st.sampled_from("abc").map(lambda id: ToolResultMessage(call_id=id, name="t", content=f"answer {id}")),
)


@given(before=st.lists(SAID, max_size=12), now=st.lists(st.sampled_from(["hi", "ho"]).map(user), max_size=1))
def test_a_session_is_joined_to_what_every_provider_takes(before: list[Message], now: list[Message]) -> None:
    messages = joined(before, now)
    position = 0
    while position < len(messages):
        message = messages[position]
        assert message.role != "tool", "an answer without its call"
        following = messages[position + 1 :]
        if isinstance(message, AssistantMessage):
            calls = [each.id for each in message.tool_calls]
            answers = following[: len(calls)]
            assert [each.call_id for each in answers if isinstance(each, ToolResultMessage)] == calls
            position += len(calls)
        else:
            assert not following or following[0].role != "user", "two user messages in a row"
        position += 1
    kept = [message for message in before if message.role == "assistant"]
    assert [message for message in messages if message.role == "assistant"] == kept
    assert joined(messages, []) == messages
    words = [word for each in messages if isinstance(each, UserMessage) for word in str(each.content).split()]
    said = [str(each.content) for each in [*before, *now] if isinstance(each, UserMessage)]
    assert words == said or (bool(before and now) and before[-1] == now[0] and words == said[:-1])


@settings(deadline=None)
@given(appends=st.lists(st.lists(SAID, max_size=4), max_size=6), now=st.sampled_from([[], [user("hi")]]))
def test_a_session_that_grows_is_joined_as_if_read_whole(appends: list[list[Message]], now: list[Message]) -> None:
    async def run() -> None:
        store = MemorySessions()
        reader = SessionReader(store)
        prefixes = [await reader.read("s")]
        for number, append in enumerate(appends):
            await store.append("s", append, key=str(number))
            prefixes.append(await reader.read("s"))
        for prefix in prefixes:
            assert await reader.joined(prefix, now) == joined(await reader.messages(prefix), now)

    asyncio.run(run())


def test_an_answer_that_was_saved_late_stands_behind_its_call() -> None:
    first = AssistantMessage(parts=[ToolCall(id="1", name="t", arguments={})])
    late = ToolResultMessage(call_id="1", name="t", content="42")
    saved: list[Message] = [user("a"), first, user("b"), assistant("from another run"), late, first]
    messages = joined(saved, [user("c")])
    assert messages[:5] == [user("a"), first, late, user("b"), assistant("from another run")]
    assert messages[5] == first
    assert cut_off(messages[6]), "an id that is used again takes no answer of before"
    assert messages[7:] == [user("c")]


@pytest.mark.asyncio
async def test_what_a_run_records_of_its_session_does_not_grow(tmp_path: Path) -> None:
    store = SQLiteSessions(tmp_path / "sessions.db")
    agent = Agent("a", model=ScriptedModel(*["word " * 200] * 60), instructions="", sessions=store)
    sizes = []
    async with MemoryBackend([agent]) as backend:
        for number in range(60):
            run = await backend.start(agent, AgentInput(message=f"{number} " * 100, session_key="s"))
            await run.ended()
            sizes.append(len((await run.history()).to_jsonl()))
    assert max(sizes) <= min(sizes) + 400


# -- files that are not as they were


@files
@pytest.mark.asyncio
async def test_a_damaged_file_is_an_error_that_names_it(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    for number in range(3):
        await store.append("s", [user("word " * 200)], key=str(number))
    path = file_of(tmp_path)
    data = bytearray(path.read_bytes())
    middle = data.index(b"word word")
    data[middle : middle + 300] = b"\xff" * 300
    path.write_bytes(data)
    with pytest.raises(SessionError, match=str(path)) as caught:
        await store.load("s")
    assert "restore it from a backup" in str(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "line 2 is damaged"),
        ("[]", "line 2 is damaged"),
        ('{"v":1,"session":"other","key":"k","messages":[]}', "line 2 is damaged.*not an entry of session 's'"),
        ('{"v":1,"session":"s","key":"k","messages":[{"role":"nobody"}]}', "line 2 is damaged"),
        ('{"v":1,"session":"s","messages":[]}', "line 2 is damaged.*'key'"),
        ('{"v":2,"session":"s","key":"k","messages":[]}', "line 2: written by a newer durably.*upgrade durably"),
    ],
)
async def test_a_line_that_is_not_ours(line: str, complaint: str, tmp_path: Path) -> None:
    store = JSONLSessions(tmp_path)
    await store.append("s", [user("hi")], key="1")
    with store.path("s").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(SessionError, match=complaint):
        await store.load("s")
    if "nobody" not in line:
        with pytest.raises(SessionError, match=complaint):
            await store.append("s", [user("hi")], key="2")


@pytest.mark.asyncio
async def test_lines_are_json_that_people_can_read_and_edit(tmp_path: Path) -> None:
    store = JSONLSessions(tmp_path)
    await store.append("chat/7: Ann", [user("hé")], key="1")
    path = store.path("chat/7: Ann")
    assert path.name.startswith("chat-7-Ann-")
    assert json.loads(path.read_text()) == {
        "v": 1,
        "session": "chat/7: Ann",
        "key": "1",
        "messages": [{"role": "user", "content": "hé"}],
    }
    path.write_text(path.read_text().replace("hé", "hello").rstrip("\n"))  # by an editor that ends without a line break
    await store.append("chat/7: Ann", [user("again")], key="2")
    assert await store.load("chat/7: Ann") == [user("hello"), user("again")]


@pytest.mark.asyncio
async def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JSONLSessions(tmp_path)
    await store.append("s", [user("hi")], key="1")
    before = store.path("s").read_bytes()
    write = os.write

    def full(file: int, data: Any) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return write(file, bytes(data)[:40])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        await store.append("s", [user("hello")], key="2")
    monkeypatch.undo()
    assert store.path("s").read_bytes() == before


@pytest.mark.asyncio
async def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with SQLiteBackend(path, []):
        pass
    with pytest.raises(SessionError, match="does not hold sessions"):
        await SQLiteSessions(path).append("s", [user("hi")], key="1")
    with pytest.raises(SessionError, match="does not hold sessions"):
        await SQLiteSessions(path).load("s")
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(SessionError, match="file is not a database"):
        await SQLiteSessions(tmp_path / "text").load("s")
    with pytest.raises(SessionError, match="there is no directory"):
        await SQLiteSessions(tmp_path / "nowhere" / "s.db").append("s", [], key="1")


@pytest.mark.asyncio
async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    store = SQLiteSessions(tmp_path / "s.db")
    await store.append("s", [user("hi")], key="1")
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(SessionError, match="upgrade durably"):
        await store.load("s")


def test_a_system_without_locks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jsonl, "fcntl", None)
    with pytest.raises(SessionError, match="use SQLiteSessions"):
        JSONLSessions(tmp_path)


@pytest.mark.asyncio
async def test_a_secret_in_a_session_key_mixes_no_sessions() -> None:
    """All secrets are masked by one text, so both customers would have one session."""
    agent = Agent("a", model=ScriptedModel("never", "never"), instructions="", sessions="backend", retries=0)
    secrets = ["the token of ann", "the token of bob"]
    async with MemoryBackend([agent], secrets=secrets) as backend:
        for secret in secrets:
            with pytest.raises(InvokeError, match=r"not a session key: a registered secret in it was masked"):
                await backend.invoke(agent, AgentInput(message="hi", session_key=secret))
