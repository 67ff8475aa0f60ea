"""OpenAI's answers in the background.

Written after https://developers.openai.com/api/docs/guides/background and
https://platform.openai.com/docs/api-reference/responses/cancel.
"""

from __future__ import annotations

import json
from typing import Any

from durably.testing.models.late.job import Job, Way
from durably.testing.models.wire.http import HTTPRequest
from durably.testing.models.wire.strict import InvalidRequest

__all__ = ["Background"]

PATH = "/v1/responses"


class Background(Way):
    """Takes requests with ``background``, and says how they stand."""

    async def handle(self, request: HTTPRequest) -> str | None:
        if request.path == PATH and request.method == "POST":
            data = request.json()
            return await self._create(data, request) if data.get("background") else None
        job = self._asked(request, PATH, "Response")
        return None if job is None else json.dumps(_shown(job))

    async def _create(self, data: dict[str, Any], request: HTTPRequest) -> str:
        if data.get("store", True) is not True:
            # Documented: "Background sampling requires store=true; stateless requests are rejected."
            raise InvalidRequest("Background mode requires 'store' to be true.")
        if data.get("stream"):
            raise InvalidRequest("this server does not stream answers in the background")
        return json.dumps(_shown(await self._begin("resp_bg", PATH, data, request.headers, judged=True)))


def _shown(job: Job) -> dict[str, Any]:
    answer = job.answer or {"object": "response", "created_at": 0, "output": [], "usage": None}
    made = {**answer, "id": job.id, "background": True, "store": True}
    if job.pending:
        begun = {**made, "output": [], "usage": None, "incomplete_details": None}
        return {**begun, "status": "in_progress" if job.polls == 1 else "queued"}
    if job.ended is not None:
        return {**made, "output": [], "usage": None, "status": "cancelled"}
    if job.failure is not None:
        status, code, message = job.failure
        usual = "rate_limit_exceeded" if status == 429 else "server_error" if status >= 500 else "invalid_prompt"
        return {**made, "status": "failed", "error": {"code": code or usual, "message": message}}
    return made
