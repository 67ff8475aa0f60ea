"""OpenAI's batches, each of one request: a file with it, a batch of the file, and a file with the answer.

Owns: the files and the states. Does not own: requests and answers (``responses.py``, ``chat.py``), and the client.

Written after https://platform.openai.com/docs/guides/batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import openai
from openai.types import Batch

from durably.core import ModelError
from durably.providers.failures import Failures
from durably.providers.later import submission_key, with_key

__all__ = ["cancel", "fetch", "submit"]

UNFINISHED = ("validating", "in_progress", "finalizing")


async def submit(
    client: openai.AsyncOpenAI, endpoint: str, body: Mapping[str, Any], headers: Mapping[str, Any], failures: Failures
) -> str:
    """Submit a request in a batch of its own, and return the batch's id."""
    key = submission_key()
    line = json.dumps({"custom_id": key, "method": "POST", "url": endpoint, "body": body})
    uploaded = await client.files.create(file=(f"{key}.jsonl", line.encode()), purpose="batch", extra_headers=headers)
    with failures.reading():
        file_id = uploaded.id
    made = await client.batches.create(
        completion_window="24h",
        endpoint=endpoint,  # type: ignore[arg-type]  # one of two, as the caller knows
        input_file_id=file_id,
        metadata={"idempotency_key": key},
        extra_headers=with_key(headers),
    )
    with failures.reading():
        return made.id


async def fetch(client: openai.AsyncOpenAI, batch_id: str, failures: Failures) -> dict[str, Any] | None:
    """Return the JSON of the answer in a batch, or ``None`` if it is not there yet.

    Raises:
        ModelError: If there will be none.
    """
    batch = await client.batches.retrieve(batch_id)
    with failures.reading():
        if batch.status in UNFINISHED:
            return None
        file_id = _answer_file(batch, failures)
    content = await client.files.content(file_id)
    with failures.reading():
        line = json.loads(content.text.splitlines()[0])
        answered = line.get("response")
        if not answered:
            error = line.get("error") or {}
            raise failures.unusable(f"the batch {batch_id} {batch.status}: {error.get('message') or error.get('code')}")
        if answered["status_code"] != 200:
            raise failures.late(_refused(answered, failures))
        made: dict[str, Any] = answered["body"]
        return made


def _answer_file(batch: Batch, failures: Failures) -> str:
    file_id = batch.output_file_id or batch.error_file_id
    if file_id is None:
        told = [each.message for each in (batch.errors.data or [])] if batch.errors else []
        raise failures.unusable(f"the batch {batch.id} {batch.status}: {'; '.join(filter(None, told)) or 'no reason'}")
    return file_id


def _refused(answered: Mapping[str, Any], failures: Failures) -> ModelError:
    error = (answered.get("body") or {}).get("error") or {}
    failures.headers = {"x-request-id": answered["request_id"]} if answered.get("request_id") else {}
    code = error.get("code") if isinstance(error.get("code"), str) else error.get("type")
    return failures.answered(answered["status_code"], str(error.get("message") or "failed"), code=code)


async def cancel(client: openai.AsyncOpenAI, batch_id: str) -> None:
    """Cancel a batch, unless it has ended."""
    batch = await client.batches.retrieve(batch_id)
    if batch.status in UNFINISHED:
        await client.batches.cancel(batch_id)
