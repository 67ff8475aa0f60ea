"""Which parameters Anthropic refuses, and which it refuses together.

Written after https://docs.anthropic.com/en/api/messages and
https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#important-considerations-when-using-extended-thinking.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from durably.testing.models.wire.strict import InvalidRequest, take

__all__ = ["check_last_message", "check_parameters"]

EFFORTS = ("low", "medium", "high", "xhigh", "max")
LEAST_BUDGET = 1024

_ONE_OF_TWO = re.compile(r"claude-(opus-4-[1-9]|(sonnet|haiku)-4-[5-9])\b.*")
"""Models that take a temperature or a top_p: https://docs.anthropic.com/en/docs/about-claude/models/migration-guide."""

_NO_PREFILL = re.compile(r"claude-(opus|sonnet)-4-[6-9]\b.*|claude-(opus|sonnet)-[5-9]\b.*")
"""Recorded: https://github.com/Tarquinen/opencode-dynamic-context-pruning/issues/520."""

_GOES_ON = ("server_tool_use", "mcp_tool_use", "compaction")
"""Blocks by which an answer is known that the provider paused: it is sent back as it is, and goes on."""


def check_parameters(data: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Refuse what the parameters exclude, alone and together."""
    for name, least, most in (("temperature", 0, 1), ("top_p", 0, 1), ("top_k", 0, None)):
        value = data.get(name)
        if value is None:
            continue
        if value < least:
            raise InvalidRequest(f"{name}: Input should be greater than or equal to {least}")
        if most is not None and value > most:
            raise InvalidRequest(f"{name}: Input should be less than or equal to {most}")
    model = str(data.get("model"))
    if {"temperature", "top_p"} <= set(data) and _ONE_OF_TWO.fullmatch(model):
        raise InvalidRequest("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    effort = (data.get("output_config") or {}).get("effort")
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequest(f"output_config.effort: Input should be {', '.join(EFFORTS)}")
    thinking = data.get("thinking") or {"type": "disabled"}
    kind = take(thinking, "type", str, "thinking")
    if kind not in ("enabled", "adaptive", "disabled"):
        raise InvalidRequest(f"thinking: Input tag {kind!r} does not match any of the expected tags")
    if kind == "enabled":
        _check_budget(data, take(thinking, "budget_tokens", int, "thinking.enabled"), headers)
        _check_thought(data["messages"])
    if kind != "disabled":
        _check_beside_thinking(data)


def _check_budget(data: Mapping[str, Any], budget: int, headers: Mapping[str, str]) -> None:
    if budget < LEAST_BUDGET:
        raise InvalidRequest(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {LEAST_BUDGET}")
    if budget >= data["max_tokens"] and "interleaved-thinking" not in headers.get("anthropic-beta", ""):
        raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_beside_thinking(data: Mapping[str, Any]) -> None:
    if data.get("temperature", 1) != 1:
        raise InvalidRequest("`temperature` may only be set to 1 when thinking is enabled.")
    if data.get("top_p", 1) < 0.95:
        raise InvalidRequest("`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")
    if "top_k" in data:
        raise InvalidRequest("`top_k` must be unset when thinking is enabled.")
    if (data.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.")


def _check_thought(messages: list[Mapping[str, Any]]) -> None:
    """Refuse a turn that is under way and did not begin with a thought.

    See https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#preserving-thinking-blocks.
    """
    asked = None
    for place, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        if message["role"] == "assistant":
            asked = place if any(block.get("type") == "tool_use" for block in blocks) else None
        elif not any(block.get("type") == "tool_result" for block in blocks):
            asked = None
    if asked is None:
        return
    first = messages[asked]["content"][0]["type"]
    if first not in ("thinking", "redacted_thinking"):
        raise InvalidRequest(
            f"messages.{asked}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When "
            "`thinking` is enabled, a final `assistant` message must start with a thinking block (preceding the "
            "lastmost set of `tool_use` and `tool_result` blocks)."
        )


def check_last_message(data: Mapping[str, Any]) -> None:
    """Refuse a conversation that ends with the model's own words, where it does not go on with them."""
    last = data["messages"][-1]
    if last["role"] != "assistant" or not _NO_PREFILL.fullmatch(str(data["model"])):
        return
    blocks = last["content"] if isinstance(last["content"], list) else []
    if not any(block.get("type") in _GOES_ON for block in blocks):
        raise InvalidRequest(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
