"""The chat service: messages, the live stream, approvals, two workers on one file, and crashes."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably.backends import SQLiteBackend
from durably.core import AgentInput
from durably.testing import crash_matrix
from examples.chat_service.agent import support
from examples.chat_service.web import make_app
from examples.chat_service.worker import make_worker

SECONDS = 30


@asynccontextmanager
async def service(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The web service and two workers, on one file."""
    app = make_app(SQLiteBackend(path))
    async with (
        make_worker(path),
        make_worker(path),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chat", timeout=SECONDS) as client,
    ):
        yield client


def told(stream: str) -> list[tuple[str, Any]]:
    """The events of a stream: name and data."""
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in stream.strip().split("\n\n")]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


@pytest.mark.asyncio
async def test_a_message_is_answered_and_its_answer_streamed(tmp_path: Path) -> None:
    async with service(tmp_path / "runs.db") as client:
        for _ in range(2):  # a phone sends a message again when it heard nothing
            sent = await client.post("/chats/ann/messages", json={"text": "Hello there.", "id": "1"})
            assert (sent.status_code, sent.json()) == (202, {"run": "ann-1"})
        stream = (await client.get("/runs/ann-1/events")).text
        events = told(stream)
        assert "".join(data for name, data in events if name == "text").strip() == "You said: Hello there."
        assert events[-1] == ("end", {"status": "completed", "text": "You said: Hello there."})
        ids = [line.removeprefix("id: ") for line in stream.splitlines() if line.startswith("id: ")]
        again = await client.get("/runs/ann-1/events", headers={"Last-Event-ID": ids[1]})
        assert told(again.text) == events[2:], "whoever lost the connection gets what it missed"
        chat = (await client.get("/chats/ann")).json()
        assert [message["role"] for message in chat] == ["user", "assistant"]
        assert (await client.get("/runs/nobody/events")).status_code == 404


@pytest.mark.parametrize(
    ("key", "id", "text", "status"),
    [
        ("ann", "1", "Another text.", 409),
        ("a" * 201, "1", "Hello.", 422),
        ("ann", "1" * 300, "Hello.", 422),
        ("ann", "a\0b", "Hello.", 422),
    ],
)
@pytest.mark.asyncio
async def test_a_message_that_cannot_be_taken_is_the_customers_mistake(
    tmp_path: Path, key: str, id: str, text: str, status: int
) -> None:
    async with service(tmp_path / "runs.db") as client:
        await client.post("/chats/ann/messages", json={"text": "Hello there.", "id": "1"})
        refused = await client.post(f"/chats/{key}/messages", json={"text": text, "id": id})
        assert (refused.status_code, bool(refused.json()["detail"])) == (status, True)


@pytest.mark.asyncio
async def test_a_refund_waits_for_a_person_and_happens_once(tmp_path: Path) -> None:
    async with service(tmp_path / "runs.db") as client:
        await client.post("/chats/ann/messages", json={"text": "A refund, please.", "id": "1"})
        async with asyncio.timeout(SECONDS):
            while not (pending := (await client.get("/approvals")).json()):  # noqa: ASYNC110 - a page would ask again too
                await asyncio.sleep(0.05)
        assert [(each["tool"], each["arguments"]) for each in pending] == [("refund", {"order": 7, "euros": 20})]
        answers = [
            await client.post(f"/approvals/{pending[0]['id']}", json={"approved": True, "by": name})
            for name in ("Bob", "Eve")
        ]
        assert [answer.status_code for answer in answers] == [200, 409]
        events = told((await client.get("/runs/ann-1/events")).text)
        assert events[-1][1]["text"] == "The desk says: 20 euros of order 7 were refunded"
        books = list((tmp_path / "runs.books").iterdir())
        assert [each.read_text() for each in books] == ["order 7: 20 euros"]


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_run_of_the_chat_is_the_same_wherever_it_crashes(backend: str) -> None:
    report = await crash_matrix(
        lambda: support(), AgentInput(message="Hello there.", session_key="ann"), backend=backend
    )
    assert report.ok, report
    assert not report.error, report


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.asyncio
async def test_real_processes_share_the_file_and_one_worker_may_be_killed(tmp_path: Path) -> None:
    path, port = tmp_path / "runs.db", _free_port()

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", f"examples.chat_service.{program}", str(path), *arguments])

    processes = [start("worker"), start("worker"), start("web", str(port))]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
            async with asyncio.timeout(SECONDS):
                while True:
                    with suppress(httpx.ConnectError):
                        await client.get("/approvals")
                        break
                    await asyncio.sleep(0.1)
            await client.post("/chats/ann/messages", json={"text": "One.", "id": "1"})
            assert told((await client.get("/runs/ann-1/events")).text)[-1][1]["text"] == "You said: One."
            processes[0].kill()
            await client.post("/chats/ann/messages", json={"text": "Two.", "id": "2"})
            assert told((await client.get("/runs/ann-2/events")).text)[-1][1]["text"] == "You said: Two."
            assert len((await client.get("/chats/ann")).json()) == 4
    finally:
        for process in processes:
            process.kill()
            process.wait()
