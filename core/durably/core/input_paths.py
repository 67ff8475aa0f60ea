"""Dotted paths in a function's input: what an input type says of them, and their values in an event.

Owns: the walk over types, and the refusal of a path that leads nowhere. Does not own: which options have such paths
(``functions.py``), and what they mean (``flow.py``).
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Union, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, BaseModel

from durably.core.error_text import shown
from durably.core.errors import DefinitionError, MissingKeyError
from durably.core.events import Event
from durably.core.secrets import MASK

__all__ = ["check_path", "key_value", "number_at"]

_CLOSED = (str, bytes, bool, int, float, list, tuple, set, frozenset, type(None))
"""Types whose JSON has no names in it."""


def check_path(path: str, tp: object, what: str) -> None:
    """Refuse a path that leads nowhere in any value of a type.

    Args:
        path: Such as ``"order.id"``.
        tp: The input type. Where it does not say what is there, as ``Any`` and ``dict`` do not, any path is taken.
        what: What the path is for. The error begins with it.

    Raises:
        DefinitionError: If it leads nowhere.
    """
    if not isinstance(path, str):
        raise DefinitionError(f"{what}: a key is a dotted path in the input, such as 'user.id', not {shown(path)}")
    level: list[object] = [tp]
    for part in path.removeprefix("data.").split("."):
        known = [names for each in level for names in _names(each)]
        if any(names is None for names in known):
            return
        fields = [names for names in known if names is not None]
        level = [names[part] for names in fields if part in names]
        if not level:
            there = ", ".join(sorted({name for names in fields for name in names})) or "nothing with a name"
            raise DefinitionError(f"{what}: the input has no {shown(part)} at {shown(path)}; there is {there}")


def key_value(event: Event, path: str, *, function: str, option: str) -> str:
    """Return the value at a path as JSON text, which tells one key from another.

    Args:
        event: What starts a run.
        path: The path.
        function: The id of the function.
        option: The option that has the path.

    Raises:
        MissingKeyError: If there is no value, or null, or one with a masked secret in it: events that have nothing in
            common must not share a key.
    """
    value = event.at(path)
    if value is None:
        raise MissingKeyError(function=function, option=option, key=path)
    text = json.dumps(value, sort_keys=True)
    if MASK in text:  # all secrets are masked by one text
        raise MissingKeyError(function=function, option=option, key=path, wanted="a value without registered secrets")
    return text


def number_at(event: Event, path: str, *, function: str, option: str) -> float:
    """Return the number that a text is, or that stands at this path; 0 where nothing does.

    Raises:
        MissingKeyError: If something else than a number stands there.
    """
    try:
        return float(path)
    except ValueError:
        value = event.at(path)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MissingKeyError(function=function, option=option, key=path, wanted="a number")
    return float(value)


def _names(tp: object) -> list[Mapping[str, object] | None]:
    """The names in the JSON of a type, each with its own type, for each form it has; ``None`` where it does not say."""
    origin, args = get_origin(tp), get_args(tp)
    if origin is Annotated:
        return _names(args[0])
    if origin in (Union, types.UnionType):
        return [names for each in args for names in _names(each)]
    if (inner := getattr(tp, "__value__", getattr(tp, "__supertype__", None))) is not None:
        return _names(inner)  # a type alias, or a NewType
    plain = origin if isinstance(origin, type) else tp
    if not isinstance(plain, type):
        return [None]
    if issubclass(plain, BaseModel):
        return _model_names(plain)
    if hasattr(plain, "__required_keys__") or dataclasses.is_dataclass(plain):  # the first: a TypedDict of any kind
        return [_hints(plain)]
    if issubclass(plain, Sequence | set | frozenset) or plain in _CLOSED:
        return [{}]
    if issubclass(plain, Mapping) and len(args) == 2:
        return [_AnyName(args[1])]
    return [None]


class _AnyName(dict[str, object]):
    """Every name is there, with one type."""

    def __init__(self, tp: object) -> None:
        super().__init__({"any name": tp})

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> object:
        return next(iter(self.values()))


def _model_names(model: type[BaseModel]) -> list[Mapping[str, object] | None]:
    fields = model.model_fields
    if "root" in fields:
        return _names(fields["root"].annotation)
    if model.model_config.get("extra") == "allow":
        return [None]
    names: dict[str, object] = {}
    for name, field in fields.items():
        alias = field.validation_alias
        aliases = alias.choices if isinstance(alias, AliasChoices) else [alias]
        if any(each is not None and not isinstance(each, str) for each in aliases):
            return [None]  # a path into the data: any name may be the first of one
        names |= dict.fromkeys([name, *(each for each in aliases if isinstance(each, str))], field.annotation)
    return [names]


def _hints(tp: type) -> Mapping[str, object] | None:
    try:
        return get_type_hints(tp)
    except Exception:  # an annotation is code, and may name what exists for type checkers alone
        return None
