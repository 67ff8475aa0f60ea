"""JSON schemas in the strict form that providers want for structured output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["schema_prompt", "strict_schema"]

_NESTED = ("properties", "$defs", "definitions")

_IN_WORDS = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "multipleOf",
        "pattern",
        "uniqueItems",
    }
)
"""Keywords that some provider refuses in a schema. They go into the description, for the model to read. The answer is
validated against the real type in any case."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema with every object closed and every property required, or ``None`` if it has no such form.

    Limits such as ``minimum`` move into the description. A schema has no such form if its root is not an object, or if
    an object has keys that are not known beforehand. The rules are those of
    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas.
    """
    if schema.get("type") != "object":
        return None
    try:
        made: dict[str, Any] = _strict(schema)
    except ValueError:
        return None
    return made


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    if "$ref" in node:
        return {"$ref": node["$ref"]}  # OpenAI refuses other keywords beside a reference
    made = {
        key: {name: _strict(each) for name, each in value.items()} if key in _NESTED else _strict(value)
        for key, value in node.items()
        if key not in ("default", "title") and key not in _IN_WORDS
    }
    limits = [f"{key}: {node[key]}" for key in node if key in _IN_WORDS]
    if limits:
        said = [str(node["description"])] if node.get("description") else []
        made["description"] = "; ".join([*said, *limits])
    if node.get("const") is not None or "enum" in node:
        return {**made, **{key: node[key] for key in ("const", "enum") if key in node}}
    if node.get("type") == "object":
        if node.get("additionalProperties", False) is not False or "properties" not in node:
            raise ValueError("an object with unknown keys")
        made["additionalProperties"] = False
        made["required"] = list(made["properties"])
    if "oneOf" in made:
        made["anyOf"] = made.pop("oneOf")
        made.pop("discriminator", None)
    return made


def schema_prompt(system: str, schema: Mapping[str, Any]) -> str:
    """Return the system prompt with the schema in words, for a provider that cannot take a schema."""
    return f"{system}\n\nThe final answer must be JSON of this schema, and nothing else: {json.dumps(schema)}".lstrip()
