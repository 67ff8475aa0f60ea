"""Tool calls in a new answer: their ids, and their arguments as the model wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from durably.core.messages import AssistantPart, ToolCall

__all__ = [
    "call_arguments",
    "distrust_last_call",
    "merged_tools",
    "name_calls",
    "parse_arguments",
]


def merged_tools(own: list[dict[str, Any]], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the agent's tools and those of the provider's own that the options name.

    Args:
        own: The agent's tools, in the provider's form.
        options: The request's options. ``tools`` is taken out of them.
    """
    return [*own, *(options.pop("tools", None) or ())]


def name_calls(parts: Iterable[AssistantPart], turn: int) -> list[AssistantPart]:
    """Return the parts of a new answer, with a unique id for each call.

    Args:
        parts: The parts as the provider gave them. An id may be missing or occur twice.
        turn: How many assistant messages came before. A new id is made from it, so that it is the same if the model
            call is repeated.
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
    """Make the arguments of the last call into text, for an answer that was cut off.

    They may lack what was cut. Arguments that are text are reported to the model and never run.
    """
    if parts and isinstance(parts[-1], ToolCall) and not isinstance(parts[-1].arguments, str):
        parts[-1] = parts[-1].model_copy(update={"arguments": json.dumps(parts[-1].arguments)})


def parse_arguments(text: str) -> dict[str, Any] | str:
    """Return the JSON object that a model wrote as arguments, or the text if it is not a JSON object."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\ud" in text.lower():  # half of a surrogate pair is valid JSON here, but cannot be written as UTF-8
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


def call_arguments(given: object) -> dict[str, Any] | str:
    """Return a call's arguments.

    Args:
        given: What stands in the answer: a text, or an object on some servers. Nothing, or an empty text, is a call
            without arguments.
    """
    if isinstance(given, dict):
        return given
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    return parse_arguments(given if isinstance(given, str) else json.dumps(given))
