"""OpenAI's batches: a file of requests, and a file of answers.

Written after https://platform.openai.com/docs/guides/batch and https://platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from durably.core.serialization import digest
from durably.testing.models.late.job import Answering, Job, Way
from durably.testing.models.wire.http import HTTPRequest
from durably.testing.models.wire.strict import InvalidRequest, only, take

__all__ = ["FileBatches"]

BATCHES = "/v1/batches"
FILES = "/v1/files"
ENDPOINTS = ("/v1/responses", "/v1/chat/completions")


class FileBatches(Way):
    """Takes files with one request, makes batches of them, and says how they stand."""

    def __init__(self, answer: Answering, polls: int, jobs: list[Job]) -> None:
        super().__init__(answer, polls, jobs)
        self._files: dict[str, str] = {}
        self._made: dict[str, dict[str, Any]] = {}

    async def handle(self, request: HTTPRequest) -> str | None:
        if request.path == FILES and request.method == "POST":
            return self._upload(request)
        if request.path.startswith(f"{FILES}/") and request.method == "GET":
            return self._content(request.path.removeprefix(f"{FILES}/"))
        if request.path == BATCHES and request.method == "POST":
            return await self._create(request)
        job = self._asked(request, BATCHES, "Batch")
        return None if job is None else json.dumps(self._shown(job))

    def _upload(self, request: HTTPRequest) -> str:
        head = f"content-type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + request.body)
        fields = {str(part.get_param("name", header="content-disposition")): part for part in form.iter_parts()}
        if "file" not in fields or "purpose" not in fields:
            raise InvalidRequest("'file' and 'purpose' are required properties")
        purpose = fields["purpose"].get_content().strip()
        if purpose != "batch":
            raise InvalidRequest(f"'{purpose}' is not one of ['batch'] - 'purpose'")
        content = fields["file"].get_content()
        content = content.decode() if isinstance(content, bytes) else content
        file_id = f"file-{digest(content)}"
        self._files[file_id] = content
        made = {"id": file_id, "object": "file", "bytes": len(content), "created_at": 0}
        return json.dumps({**made, "filename": "batch.jsonl", "purpose": "batch", "status": "processed"})

    def _content(self, place: str) -> str:
        file_id, _, rest = place.partition("/")
        job_id, _, kind = file_id.rpartition("-")
        if rest != "content" or kind not in ("output", "error"):
            raise InvalidRequest(f"No such File object: {file_id}", status=404)
        return json.dumps(self._line(self._find(job_id, "Batch"))) + "\n"

    async def _create(self, request: HTTPRequest) -> str:
        data = request.json()
        only(data, ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"), "body")
        if take(data, "completion_window", str, "body") != "24h":
            raise InvalidRequest(f"Invalid value: '{data['completion_window']}'. Value must be '24h'.")
        endpoint = take(data, "endpoint", str, "body")
        if endpoint not in ENDPOINTS:
            raise InvalidRequest(f"Invalid value: '{endpoint}'. Supported values are: {', '.join(ENDPOINTS)}.")
        file_id = take(data, "input_file_id", str, "body")
        if file_id not in self._files:
            raise InvalidRequest(f"No such File object: {file_id}")
        [line] = self._files[file_id].splitlines()
        asked = json.loads(line)
        only(asked, ("custom_id", "method", "url", "body"), "line 1")
        if take(asked, "url", str, "line 1") != endpoint or take(asked, "method", str, "line 1") != "POST":
            raise InvalidRequest("line 1: the URL of each request must be the endpoint of the batch")
        if take(asked, "body", dict, "line 1").get("stream"):
            raise InvalidRequest("line 1: streaming is not supported in batches")
        # What is wrong with the request itself is found when the batch is processed.
        job = await self._begin("batch", endpoint, asked["body"], request.headers, judged=False)
        job.custom_id = take(asked, "custom_id", str, "line 1")
        self._made[job.id] = data
        return json.dumps(self._shown(job))

    def _shown(self, job: Job) -> dict[str, Any]:
        data = self._made[job.id]
        status = "in_progress" if job.pending else job.ended or "completed"
        answered = status == "completed" and job.failure is None
        kind = "output" if answered else "error"
        files = {} if job.pending else {f"{kind}_file_id": f"{job.id}-{kind}"}
        made = {"id": job.id, "object": "batch", "created_at": 0, "errors": None, "metadata": data.get("metadata")}
        named = {name: data[name] for name in ("endpoint", "input_file_id", "completion_window")}
        return {**made, **named, "status": status, **files}

    def _line(self, job: Job) -> dict[str, Any]:
        made: dict[str, Any] = {
            "id": f"batch_req_{job.id}",
            "custom_id": job.custom_id,
            "response": None,
            "error": None,
        }
        if job.ended is not None:
            return {**made, "error": {"code": f"batch_{job.ended}", "message": f"This request was {job.ended}."}}
        status, body = 200, job.answer
        if job.failure is not None:
            status, code, message = job.failure
            body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        return {**made, "response": {"status_code": status, "request_id": f"req_{job.id}", "body": body}}
