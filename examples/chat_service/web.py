"""The web process. It starts runs and looks at them; it runs none, so it can be restarted at any time."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from durably.backends import SQLiteBackend
from durably.core import AgentInput, AgentResult, ApprovalNotPendingError, Backend, FunctionRef, RunNotFoundError
from durably.core.errors import RunExistsError
from durably.core.messages import SessionNote
from durably.core.model import StreamedDelta
from durably.core.observer import RunEnded, StepEnded

__all__ = ["make_app"]

SUPPORT = FunctionRef[AgentInput, AgentResult]("support", input_type=AgentInput, output_type=AgentResult)


class Message(BaseModel):
    """What a customer says.

    Args:
        text: The words.
        id: Made by the customer's program: the same message sent twice starts one run.
    """

    text: str
    id: str


class Decision(BaseModel):
    """What a person says to a call that waits for it."""

    approved: bool
    by: str
    reason: str = ""


def make_app(backend: Backend) -> FastAPI:
    """Return the service.

    Args:
        backend: A client: a backend without functions, which the service opens and closes.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with backend:
            yield

    app = FastAPI(title="chat", lifespan=lifespan)

    @app.post("/chats/{key}/messages", status_code=202)
    async def say(key: str, message: Message) -> dict[str, str]:
        try:
            asked = AgentInput(message=message.text, session_key=key)
            run = await backend.start(SUPPORT, asked, run_id=f"{key}-{message.id}")
        except RunExistsError as error:  # the same id with another text
            raise HTTPException(409, str(error)) from error
        except ValueError as error:  # a key or an id that is too long, or holds what no engine takes
            raise HTTPException(422, str(error)) from error
        return {"run": run.id}

    @app.get("/chats/{key}")
    async def chat(key: str) -> list[dict[str, Any]]:
        entries = await backend.sessions.load(key)
        return [entry.model_dump(mode="json") for entry in entries if not isinstance(entry, SessionNote)]

    @app.get("/runs/{run_id}/events")
    async def events(run_id: str, last_event_id: int | None = Header(default=None)) -> StreamingResponse:
        try:
            run = await backend.run(run_id)
        except RunNotFoundError as error:
            raise HTTPException(404, str(error)) from error

        async def lines() -> AsyncIterator[str]:
            # A browser whose connection broke says what it had last, and gets what it missed.
            async for item in run.stream(from_offset=0 if last_event_id is None else last_event_id + 1):
                told = _told(item.event)
                if told is not None and not item.abandoned:
                    yield f"id: {item.offset}\nevent: {told[0]}\ndata: {json.dumps(told[1])}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    @app.get("/approvals")
    async def approvals() -> list[dict[str, Any]]:
        pending = await backend.approvals(function=SUPPORT)
        return [{"id": each.id, "tool": each.tool, "arguments": each.arguments} for each in pending]

    @app.post("/approvals/{approval_id}")
    async def decide(approval_id: str, decision: Decision) -> dict[str, bool]:
        try:
            if decision.approved:
                await backend.approve(approval_id, by=decision.by)
            else:
                await backend.reject(approval_id, decision.reason, by=decision.by)
        except ApprovalNotPendingError as error:
            raise HTTPException(409, str(error)) from error
        return {"approved": decision.approved}

    return app


def _told(event: object) -> tuple[str, Any] | None:
    """What the customer's page is told: the words of an answer, which tool has run, and the end."""
    if isinstance(event, StreamedDelta):
        return ("text", event.delta.text) if event.delta.kind == "text" else None
    if isinstance(event, StepEnded) and event.step.startswith("tool-"):
        return "tool", event.step
    if isinstance(event, RunEnded):
        return "end", {"status": event.status, "text": json.loads(event.output)["text"] if event.output else None}
    return None


if __name__ == "__main__":
    uvicorn.run(make_app(SQLiteBackend(Path(sys.argv[1]))), port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
