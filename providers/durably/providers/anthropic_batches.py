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


async def submit(
    client: anthropic.AsyncAnthropic, body: Mapping[str, Any], headers: Mapping[str, Any], failures: Failures
) -> str:
    """Submit a request in a batch of its own, and return the batch's id."""
    params: Any = dict(body)
    asked: Any = [{"custom_id": submission_key(), "params": params}]
    made = await client.messages.batches.create(requests=asked, extra_headers=with_key(headers))
    with failures.reading():
        return made.id


async def fetch(client: anthropic.AsyncAnthropic, batch_id: str, failures: Failures) -> dict[str, Any] | None:
    """Return the JSON of the answer in a batch, or ``None`` if it is not there yet.

    Raises:
        ModelError: If there will be none.
    """
    batch = await client.messages.batches.retrieve(batch_id)
    with failures.reading():
        if batch.processing_status != "ended":
            return None
    with failures.reading():  # the SDK reads the batch once more, to find the address of its results
        results = await client.messages.batches.results(batch_id)
    async for each in results:
        with failures.reading():
            result: dict[str, Any] = each.result.model_dump(mode="json", exclude_unset=True, warnings=False)
            return _message(result, batch_id, failures)
    raise failures.unusable(f"the batch {batch_id} has ended without a result")


def _message(result: dict[str, Any], batch_id: str, failures: Failures) -> dict[str, Any]:
    if result["type"] == "succeeded":
        made: dict[str, Any] = result["message"]
        return made
    if result["type"] == "errored":
        raise failures.late(failures.in_body(result["error"].get("error") or result["error"]))
    raise failures.unusable(f"the batch {batch_id} was not answered: its request is {result['type']!r}")


async def cancel(client: anthropic.AsyncAnthropic, batch_id: str) -> None:
    """Cancel a batch, unless it has ended."""
    batch = await client.messages.batches.retrieve(batch_id)
    if batch.processing_status == "in_progress":
        await client.messages.batches.cancel(batch_id)
