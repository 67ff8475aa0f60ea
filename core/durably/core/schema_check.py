"""Whether a value fits a JSON schema: the keywords that say what is in it, and of which types.

Owns: what is told to a person who changed the arguments of a tool of which only the schema is known. Does not own: the
verdict on the call, which whoever runs the tool takes. Keywords that are not read here (``pattern``, ``format``,
limits) are left to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["schema_complaint"]

Schema = Mapping[str, Any]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": lambda value: _is_number(value) and value == int(value),
}


def schema_complaint(schema: Schema, value: object) -> str | None:
    """Return what of a JSON value does not fit a JSON schema, or ``None`` if nothing is found.

    Args:
        schema: The schema. References within it are followed.
        value: JSON data.
    """
    return next(_complaints(schema, schema, value, "arguments"), None)


def _complaints(root: Schema, schema: Schema | bool, value: Any, place: str) -> Iterator[str]:
    if isinstance(schema, bool):
        if not schema:
            yield f"{place}: nothing may be there"
        return
    if "$ref" in schema:
        yield from _complaints(root, _referred(root, schema["$ref"]), value, place)
    yield from _of_kind(schema, value, place)
    for each in schema.get("allOf", ()):
        yield from _complaints(root, each, value, place)
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if choices and all(any(_complaints(root, each, value, place)) for each in choices):
        yield f"{place}: {value!r} is none of what may be there"
    if isinstance(value, dict):
        yield from _of_object(root, schema, value, place)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _complaints(root, schema["items"], item, f"{place}[{index}]")


def _of_kind(schema: Schema, value: object, place: str) -> Iterator[str]:
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds if kind in _TYPES):
        yield f"{place}: {value!r} is no {' or '.join(kinds)}"
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and not any(value == each and type(value) is type(each) for each in allowed):
        yield f"{place}: {value!r} is not one of {allowed}"


def _of_object(root: Schema, schema: Schema, value: dict[str, Any], place: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}: {name!r} is missing"
    for name, item in value.items():
        if name in properties:
            yield from _complaints(root, properties[name], item, f"{place}.{name}")
        elif schema.get("additionalProperties", True) is False:
            yield f"{place}: {name!r} is not known"
        elif "additionalProperties" in schema:
            yield from _complaints(root, schema["additionalProperties"], item, f"{place}.{name}")


def _referred(root: Schema, reference: str) -> Schema:
    """The part of a schema that a reference names; one that leads elsewhere says nothing."""
    found: Any = root
    for name in reference.removeprefix("#").split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) and reference.startswith("#") else {}
