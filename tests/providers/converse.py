"""A model of Bedrock's on loopback, in the converse format, with a prompt cache.

Written after https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from durably.testing.models.prompt_cache import PromptCache
from durably.testing.models.wire.http import read_request, write_json

__all__ = ["converse_server"]

CACHE_POINTS = 4


@asynccontextmanager
async def converse_server(prompt_cache: PromptCache, turns: int, tool: str) -> AsyncIterator[str]:
    """A server whose model calls a tool in each turn but the last: its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            assert request.path.endswith("/converse"), request.path
            body = request.json()
            why = _refusal(body) if "nova" in request.path else None
            text = json.dumps(_answer(body, prompt_cache, turns, tool) if why is None else {"message": why})
            write_json(writer, 200 if why is None else 400, text, {})
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**26) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _refusal(body: Mapping[str, Any]) -> str | None:
    """What Nova says of cache points behind tools, and behind their results.

    Recorded: https://github.com/danny-avila/LibreChat/issues/13838.
    """
    blocks = {"#/toolConfig/tools": (body.get("toolConfig") or {}).get("tools") or []}
    for place, message in enumerate(body["messages"]):
        results = any("toolResult" in block for block in message["content"])
        blocks[f"#/messages/{place}/content"] = message["content"] if results else []
    for where, each in blocks.items():
        for place, block in enumerate(each):
            if "cachePoint" in block:
                return f"Malformed input request: {where}/{place}: extraneous key [cachePoint] is not permitted"
    return None


def _answer(body: Mapping[str, Any], prompt_cache: PromptCache, turns: int, tool: str) -> dict[str, Any]:
    usage = prompt_cache.usage("/v1/messages", _as_messages(body))
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    content: dict[str, Any] = {"text": "done"}
    if turn < turns - 1:
        content = {"toolUse": {"toolUseId": f"call_{turn}", "name": tool, "input": {"place": turn}}}
    new = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    counts = {"cacheReadInputTokens": usage.cached_tokens, "cacheWriteInputTokens": usage.cache_write_tokens}
    return {
        "output": {"message": {"role": "assistant", "content": [content]}},
        "stopReason": "tool_use" if "toolUse" in content else "end_turn",
        "usage": {"inputTokens": new, "outputTokens": 5, "totalTokens": usage.input_tokens + 5, **counts},
        "metrics": {"latencyMs": 1},
    }


def _as_messages(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same request with breakpoints on its blocks, as Anthropic's own format has them."""
    points = json.dumps(body).count('"cachePoint"')
    assert points <= CACHE_POINTS, f"{points} cache points: Bedrock takes {CACHE_POINTS}"
    messages = [{**message, "content": _marked(message["content"])} for message in body["messages"]]
    tools = _marked((body.get("toolConfig") or {}).get("tools") or [])
    return {"tools": tools, "system": _marked(body.get("system") or []), "messages": messages}


def _marked(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for block in blocks:
        if "cachePoint" in block:
            assert made, "a cache point stands behind what is to be kept"
            made[-1]["cache_control"] = block["cachePoint"]
        else:
            made.append(dict(block))
    return made
