"""Tool calls in a new answer: an id for each, and arguments that are what the model wrote or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from durably.core.messages import AssistantPart, ToolCall
from durably.core.model import ModelRequest

__all__ = ["call_arguments", "distrust_last_call", "name_calls", "parse_arguments"]


def name_calls(parts: Iterable[AssistantPart], turn: int) -> list[AssistantPart]:
    """The parts of a new answer, each call with an id of its own.

    Args:
        parts: As the provider gave them; an id may be missing or there twice.
        turn: How many assistant messages came before, so that a made-up id is the same when the call is repeated.
    """
    seen: set[str] = set()
    made: list[AssistantPart] = []
    for index, part in enumerate(parts):
        named = part
        if isinstance(part, ToolCall):
            call_id, spare = part.id, f"call_{turn}_{index}"
            while not call_id or call_id in seen:
                call_id, spare = spare, f"{spare}_"
            seen.add(call_id)
            named = part if call_id == part.id else part.model_copy(update={"id": call_id})
        made.append(named)
    return made


def distrust_last_call(parts: list[AssistantPart]) -> None:
    """Turn the arguments of a call that ends a cut answer into text: then they are reported, and never run."""
    if parts and isinstance(parts[-1], ToolCall) and not isinstance(parts[-1].arguments, str):
        parts[-1] = parts[-1].model_copy(update={"arguments": json.dumps(parts[-1].arguments)})


def parse_arguments(text: str) -> dict[str, Any] | str:
    """The JSON object that a model wrote as a call's arguments, or its text where it is none."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(text)
    return value


def call_arguments(text: str, name: str, request: ModelRequest) -> dict[str, Any] | str:
    """A call's arguments. Empty text means none where the tool takes none; anywhere else it would be a guess."""
    if not text.strip() and any(spec.name == name and not spec.parameters.get("properties") for spec in request.tools):
        return {}
    return parse_arguments(text)
