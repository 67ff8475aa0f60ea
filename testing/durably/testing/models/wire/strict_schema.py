"""What the strict mode of structured output refuses in a schema.

Written after https://platform.openai.com/docs/guides/structured-outputs#supported-schemas and
https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs#json-schema-limitations. The sentences are those
of OpenAI's refusals, such as https://github.com/567-labs/instructor/issues/1074.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from durably.testing.models.wire.strict import InvalidRequest

__all__ = ["check_strict", "check_strict_for_claude"]

REFUSED = frozenset(
    {
        *("allOf", "not", "oneOf", "if", "then", "else", "dependentRequired", "dependentSchemas"),
        *("contains", "minContains", "maxContains", "prefixItems", "uniqueItems", "minItems", "maxItems"),
        *("patternProperties", "propertyNames", "unevaluatedProperties", "minProperties", "maxProperties"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "format", "default"),
    }
)
"""Keywords that OpenAI, Azure, a fine-tuned model of OpenAI's or Anthropic refuses. A model that works with all of them
uses none."""

DEPTH = 10
PROPERTIES = 5000
ENUM_VALUES = 1000
UNIONS = 16
"""How many parts with several types Anthropic takes in one schema."""


def check_strict(schema: Any, where: str) -> None:
    """Refuse a schema that is not in the strict form."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise InvalidRequest(f"{where}: schema must be a JSON Schema of 'type: \"object\"'")
    nodes = list(_nodes(schema, "()", 1))
    for node, place, depth in nodes:
        _check_node(node, f"{where}: In context={place}", depth)
    properties = sum(len(node.get("properties", ())) for node, _, _ in nodes)
    values = sum(len(node.get("enum", ())) for node, _, _ in nodes)
    if properties > PROPERTIES or values > ENUM_VALUES:
        raise InvalidRequest(f"{where}: {properties} properties and {values} enum values are too many")


def check_strict_for_claude(schema: Any, where: str) -> None:
    """Refuse a schema that Anthropic refuses: also one that refers to itself, or has many unions."""
    check_strict(schema, where)
    if _refers_to_itself(schema):
        raise InvalidRequest(f"{where}: recursive schemas are not supported")
    unions = sum("anyOf" in node or isinstance(node.get("type"), list) for node, _, _ in _nodes(schema, "()", 1))
    if unions > UNIONS:
        raise InvalidRequest(
            f"{where}: Schemas contains too many parameters with union types ({unions} parameters with type arrays or "
            f"anyOf). Reduce the number of nullable or union-typed parameters (limit: {UNIONS})."
        )


def _nodes(node: Any, place: str, depth: int) -> Iterator[tuple[Mapping[str, Any], str, int]]:
    """Every schema in a schema, with its place and the number of objects it stands in."""
    if not isinstance(node, Mapping):
        raise InvalidRequest(f"In context={place}: {node!r} is not a schema")
    yield node, place, depth
    for group in ("properties", "$defs", "definitions"):
        inner = depth + (group == "properties")
        for name, each in node.get(group, {}).items():
            yield from _nodes(each, f"{place}.{group}.{name}", inner)
    for index, each in enumerate(node.get("anyOf", ())):
        yield from _nodes(each, f"{place}.anyOf.{index}", depth)
    if "items" in node:
        yield from _nodes(node["items"], f"{place}.items", depth)


def _check_node(node: Mapping[str, Any], where: str, depth: int) -> None:
    for key in node:
        if key in REFUSED:
            raise InvalidRequest(f"{where}, '{key}' is not permitted.")
    if "$ref" in node:
        if beside := sorted(set(node) - {"$ref"}):
            raise InvalidRequest(f"{where}, $ref cannot have keywords {beside}.")
        return
    if not {"type", "anyOf", "enum", "const"}.intersection(node):
        raise InvalidRequest(f"{where}, schema must have a 'type' key.")
    if node.get("type") == "array" and "items" not in node:
        raise InvalidRequest(f"{where}, array schema missing items.")
    if node.get("type") == "object":
        if node.get("additionalProperties") is not False:
            raise InvalidRequest(f"{where}, 'additionalProperties' is required to be supplied and to be false.")
        if set(node.get("required", ())) != set(node.get("properties", {})):
            raise InvalidRequest(
                f"{where}, 'required' is required to be supplied and to be an array including every key in properties."
            )
        if depth > DEPTH:
            raise InvalidRequest(f"{where}, the schema exceeds {DEPTH} levels of nesting.")


def _refers_to_itself(schema: Mapping[str, Any]) -> bool:
    definitions = schema.get("$defs", {})
    refers = {name: set(_references(node)) for name, node in definitions.items()}
    reached = {name: set(direct) for name, direct in refers.items()}
    for _ in definitions:
        reached = {
            name: far.union(*(refers.get(each, set()) for each in far)) if far else far for name, far in reached.items()
        }
    return any(name in far for name, far in reached.items()) or "#" in set(_references(schema))


def _references(schema: Any) -> Iterator[str]:
    for node, _, _ in _nodes(schema, "()", 1):
        if "$ref" in node:
            yield str(node["$ref"]).rpartition("/")[2]
