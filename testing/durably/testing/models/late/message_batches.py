"""Anthropic's batches of messages.

Written after https://platform.claude.com/docs/en/build-with-claude/batch-processing and
https://platform.claude.com/docs/en/api/creating-message-batches.
"""

from __future__ import annotations

import json
import re
from typing import Any

from durably.testing.models.late.job import Job, Way
from durably.testing.models.wire.http import HTTPRequest
from durably.testing.models.wire.strict import InvalidRequest, only, take

__all__ = ["MessageBatches"]

PATH = "/v1/messages/batches"
RESULTS = re.compile(rf"{PATH}/([^/]*)/results")
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MOMENT = "2026-01-01T00:00:00Z"

_REFUSED = {400: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}


class MessageBatches(Way):
    """Takes batches of one request, and says how they stand."""

    async def handle(self, request: HTTPRequest) -> str | None:
        if request.path == PATH and request.method == "POST":
            return await self._create(request)
        if request.method == "GET" and (found := RESULTS.fullmatch(request.path)):
            return self._results(found[1])
        job = self._asked(request, PATH, "Message Batch")
        return None if job is None else json.dumps(_shown(job))

    def _results(self, job_id: str) -> str:
        job = self._find(job_id, "Message Batch")
        if job.pending:
            raise InvalidRequest(f"Batch {job_id} has no available results while it is in progress")
        return json.dumps({"custom_id": job.custom_id, "result": _result(job)}) + "\n"

    async def _create(self, request: HTTPRequest) -> str:
        data = request.json()
        only(data, ("requests",), "body")
        asked = take(data, "requests", list, "body")
        if len(asked) != 1:
            raise InvalidRequest(f"requests: this server takes batches of one request, not of {len(asked)}")
        only(asked[0], ("custom_id", "params"), "requests.0")
        custom_id, params = take(asked[0], "custom_id", str, "requests.0"), take(asked[0], "params", dict, "requests.0")
        if not CUSTOM_ID.fullmatch(custom_id):
            raise InvalidRequest(f"requests.0.custom_id: String should match pattern '^{CUSTOM_ID.pattern}$'")
        if params.get("stream"):
            raise InvalidRequest("requests.0.params.stream: streaming is not supported in batches")
        # What is wrong with its parameters is found when the batch is processed.
        job = await self._begin("msgbatch", "/v1/messages", params, request.headers, judged=False)
        job.custom_id = custom_id
        return json.dumps(_shown(job))


def _shown(job: Job) -> dict[str, Any]:
    how = _result(job)["type"] if not job.pending else "processing"
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    return {
        "id": job.id,
        "type": "message_batch",
        "processing_status": "in_progress" if job.pending else "ended",
        "request_counts": {**counts, how: 1},
        "created_at": MOMENT,
        "expires_at": MOMENT,
        "ended_at": None if job.pending else MOMENT,
        "archived_at": None,
        "cancel_initiated_at": MOMENT if job.ended == "cancelled" else None,
        "results_url": None if job.pending else f"{PATH}/{job.id}/results",
    }


def _result(job: Job) -> dict[str, Any]:
    if job.ended is not None:
        return {"type": {"cancelled": "canceled", "expired": "expired"}[job.ended]}
    if job.failure is not None or job.answer is None:
        status, code, message = job.failure or (500, None, "no answer")
        error = {"type": code or _REFUSED.get(status, "api_error"), "message": message}
        return {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
    usage = {**job.answer["usage"], "service_tier": "batch"}
    return {"type": "succeeded", "message": {**job.answer, "usage": usage}}
