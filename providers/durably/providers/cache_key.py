"""The key by which OpenAI finds the machine that has the beginning of a conversation in its prompt cache."""

from __future__ import annotations

from durably.core.model import ModelRequest
from durably.core.serialization import digest

__all__ = ["conversation_key"]


def conversation_key(request: ModelRequest) -> str:
    """Return the same text for every turn of a conversation and of its session: how it begins."""
    first = [message.model_dump_json() for message in request.messages[:1]]
    return digest("\0".join([request.system, *(spec.name for spec in request.tools), *first]))
