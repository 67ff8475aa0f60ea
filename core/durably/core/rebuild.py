"""The validator that reads a recorded value back.

A recorded value was accepted when it was written. This validator builds it again, by the names of its fields. It leaves
out what would judge or change it a second time: the validators of models and of ``Annotated``, ``__post_init__``, and
checks that look at the disk or at the clock. It keeps what makes a value of a type: a class, or a function that
``__get_pydantic_core_schema__`` of the type names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, cast, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import AfterValidator, BaseModel, BeforeValidator, TypeAdapter, WrapValidator
from pydantic.fields import FieldInfo
from pydantic.types import PathType
from pydantic_core import CoreSchema, SchemaValidator

__all__ = ["contains", "judging_validator", "rebuilding_validator"]

_FUNCTIONS = ("function-before", "function-after", "function-wrap")
_FIELDS = ("model-fields", "dataclass-args", "typed-dict")
_SCHEMAS = frozenset(
    {
        "arguments_schema",
        "choices",
        "definitions",
        "extras_keys_schema",
        "extras_schema",
        "fields",
        "items_schema",
        "json_schema",
        "keys_schema",
        "lax_schema",
        "python_schema",
        "schema",
        "steps",
        "strict_schema",
        "values_schema",
    }
)
"""The keys of a core schema that hold further schemas."""

_PATH_CHECKS = {PathType.validate_file, PathType.validate_directory, PathType.validate_new}
if hasattr(PathType, "validate_socket"):
    _PATH_CHECKS.add(PathType.validate_socket)

Node = dict[str, Any]


def rebuilding_validator(tp: Any, adapter: TypeAdapter[Any]) -> SchemaValidator:
    """The validator that reads recorded JSON of a type.

    Args:
        tp: The type.
        adapter: Its adapter, with a schema that is made.
    """
    schema = adapter.core_schema
    judges = set(_PATH_CHECKS) | {_plain(each) for each in _annotated_functions(tp, set())}
    for cls in _classes(schema):
        judges.update(_plain(each) for each in _annotated_functions(cls, set()))
        judges.update(_plain(each) for each in _decorated_functions(cls))
    return _validator(_Rebuilt(judges).schema(schema))


def judging_validator(adapter: TypeAdapter[Any]) -> SchemaValidator:
    """The validator of data from outside. It reads an ``Iterable`` at once: left lazy, its items were never judged."""
    if not contains(adapter.core_schema, "generator"):
        return cast("SchemaValidator", adapter.validator)
    return _validator(_map(adapter.core_schema, _listed))


def _validator(schema: Any) -> SchemaValidator:
    # Bytes are read as `serialization._CONFIG` has them written; classes bring their own configuration. With prebuilt
    # validators pydantic would put a model's own one, which judges, in the place of this schema.
    return SchemaValidator(schema, {"val_json_bytes": "base64"}, _use_prebuilt=False)


class _Rebuilt:
    """Takes out of a schema what judges.

    Args:
        judges: The functions that do.
    """

    def __init__(self, judges: set[Any]) -> None:
        self._judges = judges

    def schema(self, node: Any) -> Any:
        """A schema, or a part of one, without what judges."""
        return _map(node, self._rebuilt)

    def _rebuilt(self, node: Node) -> Node:
        kind = node.get("type")
        if kind in _FUNCTIONS:
            return _unwrapped(node) if self._judged(node) else node
        if kind == "model":
            return _model(node)
        if kind == "dataclass":
            return _dataclass(node)
        if kind in _FIELDS:
            return _fields(node)
        if "now_op" in node:
            return {key: value for key, value in node.items() if key != "now_op"}
        return _listed(node)

    def _judged(self, node: Node) -> bool:
        function = node["function"]["function"]
        inner = node["schema"]
        # What reads the form that a serializer of the user's own writes, or makes an object that JSON does not know,
        # is no judge: without it the record could not be read at all.
        if node["type"] != "function-after" and (_writes_its_own(node) or _writes_its_own(inner)):
            return False
        if _leaves_out(inner):
            return False
        if inner.get("type") in ("any", "is-instance") and not _is_predicate(function):
            return False
        return _is_predicate(function) or (not isinstance(function, type) and _plain(function) in self._judges)


def _model(node: Node) -> Node:
    cls = node["cls"]
    made = {**node, "custom_init": False}
    # With private attributes it also fills these, so that it must run.
    if "post_init" in made and not getattr(cls, "__private_attributes__", None):
        del made["post_init"]
    return made


def _dataclass(node: Node) -> Node:
    arguments = node["schema"]
    if arguments.get("type") != "dataclass-args":
        return node
    settable = {field["name"] for field in arguments["fields"]}
    if not set(node["fields"]) <= settable:
        return node  # only __post_init__ fills the fields that are not arguments
    kept = [{**field, "init": True} for field in arguments["fields"] if not field.get("init_only")]
    made = {**arguments, "fields": kept, "collect_init_only": False}
    return {**node, "post_init": False, "schema": made}


def _fields(node: Node) -> Node:
    # A record has the fields of its type and no others. One that has others was written by an older version of the
    # type, and is validated as a whole: see `Codec.decode`.
    return node if node.get("extra_behavior") == "allow" or _allows(node) else {**node, "extra_behavior": "forbid"}


def _allows(node: Node) -> bool:
    return bool(node.get("extras_schema")) or node.get("config", {}).get("extra_fields_behavior") == "allow"


def _listed(node: Node) -> Node:
    return {**node, "type": "list"} if node.get("type") == "generator" else node


def _unwrapped(node: Node) -> Node:
    inner: Node = node["schema"]
    if "ref" not in node:
        return inner
    if "ref" not in inner:
        return {**inner, "ref": node["ref"]}
    return {"type": "chain", "steps": [inner], "ref": node["ref"]}


def _writes_its_own(node: Node) -> bool:
    while True:
        if "function" in node.get("serialization", {}):
            return True
        inner = node.get("schema")
        if not isinstance(inner, dict) or node.get("type") in _FIELDS:
            return False
        node = inner


def _leaves_out(node: Node) -> bool:
    """Whether this is a model that leaves out fields under a condition, for its own validator to fill in again."""
    while node.get("type") in (*_FUNCTIONS, "model"):
        node = node["schema"]
    fields = node["fields"].values() if node.get("type") == "model-fields" else ()
    return any("serialization_exclude_if" in field for field in fields)


def _is_predicate(function: Any) -> bool:
    return isinstance(function, FunctionType) and function.__qualname__ == "apply_known_metadata.<locals>.val_func"


def _plain(function: Any) -> Any:
    """A function without what it is bound to: a generic model's validators are bound to each of its forms."""
    return getattr(function, "__func__", function)


# -- walking through schemas and types


def _map(node: Any, change: Callable[[Node], Node]) -> Any:
    """A schema, with every schema in it changed, the outer ones first."""
    if isinstance(node, list | tuple):
        return type(node)(_map(each, change) for each in node)
    if not isinstance(node, Mapping):
        return node
    if not isinstance(node.get("type"), str):
        return {key: _map(value, change) for key, value in node.items()}  # fields or choices by name
    changed = change(dict(node))
    while changed.get("type") in _FUNCTIONS and (again := change(changed)) is not changed:
        changed = again
    return {key: _map(value, change) if key in _SCHEMAS else value for key, value in changed.items()}


def _nodes(node: Any) -> Iterator[Node]:
    if isinstance(node, list | tuple):
        for each in node:
            yield from _nodes(each)
    elif isinstance(node, Mapping):
        typed = isinstance(node.get("type"), str)
        if typed:
            yield dict(node)
        for key, value in node.items():
            if not typed or key in _SCHEMAS:
                yield from _nodes(value)


def contains(schema: CoreSchema, kind: str) -> bool:
    """Whether a schema has a part of this kind."""
    return any(node["type"] == kind for node in _nodes(schema))


def _classes(schema: CoreSchema) -> list[type]:
    kinds = ("model", "dataclass", "typed-dict", "named-tuple")
    return [node["cls"] for node in _nodes(schema) if node["type"] in kinds and "cls" in node]


def _decorated_functions(cls: type) -> Iterator[Any]:
    decorators = getattr(cls, "__pydantic_decorators__", None)
    for kind in ("validators", "field_validators", "root_validators", "model_validators"):
        for decorator in getattr(decorators, kind, {}).values():
            yield decorator.func


def _annotated_functions(tp: Any, seen: set[int]) -> Iterator[Any]:
    """The functions in the ``Annotated`` parts of a type, and of the fields of a class."""
    if id(tp) in seen:
        return
    seen.add(id(tp))
    yield from _metadata_functions(getattr(tp, "__metadata__", ()))
    for inner in (getattr(tp, "__value__", None), get_origin(tp), *get_args(tp)):
        if inner is not None and not isinstance(inner, str | int | bytes):
            yield from _annotated_functions(inner, seen)
    if isinstance(tp, type):
        yield from _field_functions(tp, seen)


def _field_functions(cls: type, seen: set[int]) -> Iterator[Any]:
    fields: Mapping[str, FieldInfo] = getattr(cls, "__pydantic_fields__", {})
    for field in fields.values():
        yield from _metadata_functions(field.metadata)
        yield from _annotated_functions(field.annotation, seen)
    if fields or issubclass(cls, BaseModel):
        return
    if dataclasses.is_dataclass(cls) or is_typeddict(cls) or hasattr(cls, "_fields"):
        try:
            hints = get_type_hints(cls, include_extras=True)
        except Exception:  # a name that only pydantic resolves; a validator that is not found is run again
            return
        for hint in hints.values():
            yield from _annotated_functions(hint, seen)


def _metadata_functions(metadata: Any) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, AfterValidator | BeforeValidator | WrapValidator):
            yield each.func
        elif isinstance(each, FieldInfo):
            yield from _metadata_functions(each.metadata)
