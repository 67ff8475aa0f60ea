"""Anthropic's batches, each of one request.

Owns: the states and results of a batch. Does not own: requests and answers (``anthropic_messages.py``), and the client.

Written after https://platform.claude.com/docs/en/build-with-claude/batch-processing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anthropic

from durably.providers.failures import Failures
from durably.providers.later import submission_key, with_key

__all__ = ["cancel", "fetch", "submit"]


async def submit(client: anthropic.AsyncAnthropic, body: Mapping[str, Any], headers: Mapping[str, Any]) -> str:
    """Submit a request in a batch of its own, and return the batch's id."""
    params: Any = dict(body)
    asked: Any = [{"custom_id": submission_key(), "params": params}]
    made = await client.messages.batches.create(requests=asked, extra_headers=with_key(headers))
    return made.id


async def fetch(client: anthropic.AsyncAnthropic, batch_id: str, failures: Failures) -> dict[str, Any] | None:
    """Return the JSON of the answer in a batch, or ``None`` if it is not there yet.

    Raises:
        ModelError: If there will be none.
    """
    batch = await client.messages.batches.retrieve(batch_id)
    if batch.processing_status != "ended":
        return None
    async for each in await client.messages.batches.results(batch_id):
        result: dict[str, Any] = each.result.model_dump(mode="json", exclude_unset=True, warnings=False)
        if result["type"] == "succeeded":
            made: dict[str, Any] = result["message"]
            return made
        if result["type"] == "errored":
            error = result["error"].get("error") or result["error"]
            raise failures.late(failures.in_body(error))
        raise failures.unusable(f"the batch {batch_id} was not answered: its request is {result['type']!r}")
    raise failures.unusable(f"the batch {batch_id} has ended without a result")


async def cancel(client: anthropic.AsyncAnthropic, batch_id: str) -> None:
    """Cancel a batch, unless it has ended."""
    batch = await client.messages.batches.retrieve(batch_id)
    if batch.processing_status == "in_progress":
        await client.messages.batches.cancel(batch_id)
