"""Limits of request parameters, as each provider states them in its refusals."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from durably.testing.models.wire.strict import InvalidRequest

__all__ = ["check_openai", "is_reasoning", "one_of", "within"]

# https://platform.openai.com/docs/api-reference/responses/create and .../chat/create
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "top_logprobs": (0, 20),
    "n": (1, 128),
}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_VERBOSITIES = ("low", "medium", "high")
_TIERS = ("auto", "default", "flex", "scale", "priority")

TOOLS = 128
STOPS = 4
CACHE_KEY = 64
METADATA = 16

_REASONING = re.compile(r"(o[1-9]|gpt-[5-9])(?![a-z])(?!.*chat).*")


def is_reasoning(model: str) -> bool:
    """Whether OpenAI's model of this name reasons."""
    return _REASONING.fullmatch(model.removeprefix("ft:").partition(":")[0]) is not None


def within(data: Mapping[str, Any], name: str, least: float, most: float) -> None:
    """Refuse a number outside a range, in OpenAI's words (``decimal_above_max_value``)."""
    value = data.get(name)
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidRequest(f"Invalid type for '{name}': expected a decimal, but got {value!r} instead.")
    if value > most:
        raise InvalidRequest(
            f"Invalid '{name}': decimal above maximum value. Expected a value <= {most}, but got {value} instead."
        )
    if value < least:
        raise InvalidRequest(
            f"Invalid '{name}': decimal below minimum value. Expected a value >= {least}, but got {value} instead."
        )


def one_of(data: Mapping[str, Any], name: str, values: Collection[str], where: str) -> None:
    """Refuse a word that is not one of those known, in OpenAI's words (``invalid_value``)."""
    value = data.get(name)
    if value is not None and value not in values:
        known = ", ".join(f"'{each}'" for each in values)
        raise InvalidRequest(f"Invalid value: '{value}'. Supported values are: {known}. ({where}.{name})")


def check_openai(data: Mapping[str, Any], *, effort: Mapping[str, Any], effort_name: str, verbosity: Any) -> None:
    """Refuse parameters that both of OpenAI's formats refuse.

    Args:
        data: The request.
        effort: The object that holds the effort.
        effort_name: Its name in there.
        verbosity: The object that may hold ``verbosity``.
    """
    for name, (least, most) in _RANGES.items():
        within(data, name, least, most)
    one_of(effort, effort_name, _EFFORTS, "reasoning")
    one_of(verbosity, "verbosity", _VERBOSITIES, "text")
    one_of(data, "service_tier", _TIERS, "body")
    if len(data.get("tools") or ()) > TOOLS:
        raise InvalidRequest(f"Invalid 'tools': array too long. Expected an array with maximum length {TOOLS}.")
    if isinstance(stops := data.get("stop"), list) and len(stops) > STOPS:
        raise InvalidRequest(f"Invalid 'stop': array too long. Expected an array with maximum length {STOPS}.")
    if len(data.get("metadata") or ()) > METADATA:
        raise InvalidRequest(f"Invalid 'metadata': too many properties. Expected at most {METADATA}.")
    # Recorded: https://github.com/vybestack/llxprt-code/issues/2135
    if len(key := data.get("prompt_cache_key") or "") > CACHE_KEY:
        raise InvalidRequest(
            f"Invalid 'prompt_cache_key': string too long. Expected a string with maximum length {CACHE_KEY}, but got "
            f"a string with length {len(key)} instead."
        )
