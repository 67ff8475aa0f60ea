"""JSON schemas in the strict form that providers want for structured output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from durably.core.model import ToolSpec
from durably.providers.answers import UnanswerableError

__all__ = ["described", "schema_prompt", "strict_parameters", "strict_schema"]

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


_UNKNOWN = ("prefixItems", "allOf", "not", "if", "patternProperties", "propertyNames", "dependentRequired")
"""Keywords without a strict form. pydantic writes the first for a tuple."""

_SAYS_TYPE = frozenset({"type", "anyOf", "oneOf", "enum", "const"})
"""One of these says what a value is. Where none stands, as for ``Any``, it may be anything."""


MAX_DEPTH = 10
"""How many objects may stand in each other in OpenAI's strict form."""
MAX_PROPERTIES = 5000
MAX_ENUM_VALUES = 1000


def strict_schema(
    schema: Mapping[str, Any], *, recursive: bool = True, unions: int | None = None
) -> dict[str, Any] | None:
    """Return the schema with every object closed and every property required, or ``None`` if it has no such form.

    Limits such as ``minimum`` move into the description. A schema has no such form if its root is not an object, if an
    object has keys that are not known beforehand, or if a part may be anything or is a tuple. The rules are those of
    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas.

    Args:
        schema: The schema of the answer.
        recursive: Whether the provider takes a schema that refers to itself. OpenAI does, Anthropic does not.
        unions: How many parts with several types the provider takes, or ``None`` for any number.
    """
    if schema.get("type") != "object" or (not recursive and _is_recursive(schema)):
        return None
    try:
        made: dict[str, Any] = _strict(schema)
    except ValueError:
        return None
    size = _Size()
    size.add(made, 1)
    if size.depth > MAX_DEPTH or size.properties > MAX_PROPERTIES or size.values > MAX_ENUM_VALUES:
        return None
    return None if unions is not None and size.unions > unions else made


class _Size:
    """What the providers count in a strict schema."""

    def __init__(self) -> None:
        self.depth = self.properties = self.values = self.unions = 0

    def add(self, node: Mapping[str, Any], depth: int) -> None:
        """Count a part that stands in so many objects."""
        self.depth = max(self.depth, depth)
        self.properties += len(node.get("properties", ()))
        self.values += len(node.get("enum", ()))
        self.unions += "anyOf" in node or isinstance(node.get("type"), list)
        for group in _NESTED:
            for each in node.get(group, {}).values():
                self.add(each, depth + (group == "properties"))
        for each in (*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())):
            self.add(each, depth)


def _is_recursive(schema: Mapping[str, Any]) -> bool:
    """Whether the schema or a definition of it refers to itself, directly or through others."""
    definitions = schema.get("$defs", {})
    if "#" in _references(schema):
        return True
    to = {name: set(_references(node)) for name, node in definitions.items()}
    for name in to:
        seen: set[str] = set()
        front = set(to[name])
        while front:
            seen |= front
            front = {further for each in front for further in to.get(each, ())} - seen
        if name in seen:
            return True
    return False


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for each in node:
            yield from _references(each)
    elif isinstance(node, Mapping):
        if "$ref" in node:
            yield str(node["$ref"]).rpartition("/")[2]
        for each in node.values():
            yield from _references(each)


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    if "$ref" in node:
        return {"$ref": node["$ref"]}  # OpenAI refuses other keywords beside a reference
    refused = next((key for key in _UNKNOWN if key in node), None)
    if refused or not _SAYS_TYPE.intersection(node):
        raise ValueError(f"{refused or 'anything'} has no strict form")
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


def strict_parameters(spec: ToolSpec, *, recursive: bool = True, unions: int | None = None) -> dict[str, Any]:
    """Return the strict form of the schema of a tool's arguments. See :func:`strict_schema`.

    Raises:
        UnanswerableError: If it has none.
    """
    made = strict_schema(spec.parameters, recursive=recursive, unions=unions)
    if made is None:
        raise UnanswerableError(
            f"the tool {spec.name!r} is strict, but its arguments have no strict form: give each a type without free "
            "keys, tuples or Any, or take strict=True away"
        )
    return made


def described(spec: ToolSpec) -> str:
    """Return a tool's description, with its examples in words."""
    examples = [f"An example of its arguments: {json.dumps(each, ensure_ascii=False)}" for each in spec.examples]
    return "\n".join([spec.description, *examples]) if examples else spec.description


def schema_prompt(system: str, schema: Mapping[str, Any]) -> str:
    """Return the system prompt with the schema in words, for a provider that cannot take a schema."""
    return f"{system}\n\nThe final answer must be JSON of this schema, and nothing else: {json.dumps(schema)}".lstrip()
