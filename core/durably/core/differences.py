"""Where a value that was read back is not the one that was written."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.types import Secret
from pydantic_core import to_jsonable_python

__all__ = ["Difference", "find_difference", "find_nan"]

_ATOMS = frozenset({bool, int, str, type(None), bytes})
_ORDERED = (list, tuple, deque)
_UNORDERED = (set, frozenset)
_SEQUENCES = (*_ORDERED, *_UNORDERED)
_NUMBERS = (int, float, Decimal, Fraction)
_SECRETS = (SecretStr, SecretBytes, Secret)
_LOST = object()

Difference = tuple[str, str]
"""Where, as a dotted path that may be empty, and what."""


def find_difference(value: Any, back: Any, *, plain: bool) -> Difference | None:
    """Where and how a value changed between writing and reading it, or ``None`` if it did not.

    A sequence may become another kind of sequence, a number another kind of number that is equal, and a dict the object
    that its annotation names.

    Args:
        value: What was written.
        back: What was read.
        plain: Whether the type leaves a part open, as ``Any`` does. There objects become what JSON has for them.
    """
    if type(value) is type(back) and type(value) in _ATOMS:
        return None if value == back else ("", f"{_short(value)} comes back as {_short(back)}")
    return _Comparison(plain).find(value, back)


def find_nan(value: Any) -> Difference | None:
    """Where an object holds NaN or an infinity, which pydantic would write as null, or ``None``."""
    if isinstance(value, float) and not math.isfinite(value):
        return "", f"{value} has no JSON form"
    for name, part in _parts(value):
        if (found := find_nan(part)) is not None:
            return _below(name, found)
    return None


class _Comparison:
    def __init__(self, plain: bool) -> None:
        self._plain = plain

    def find(self, value: Any, back: Any) -> Difference | None:
        if value is back:
            return None
        if type(value) is type(back):
            return self._same_type(value, back)
        if isinstance(value, _SEQUENCES) and isinstance(back, _SEQUENCES):
            return self._items(value, back)
        if isinstance(value, dict) and type(back) is dict:
            return self._entries(value, back)
        if type(value) is dict and hasattr(back, "__dict__"):
            return self._object_of(value, back)
        if isinstance(value, BaseModel) and isinstance(back, type(value)):
            return self._attributes(dict(_parts(value)), dict(_parts(back)))  # the annotation names a subclass
        if _is_equal_scalar(value, back) or (type(value) is str and _text_of(back) == value):
            return None
        if self._plain and (back is None or type(back) in (bool, int, float, str, list, dict)):
            return self._plain_form(value, back)
        return _changed(value, back)

    def _same_type(self, value: Any, back: Any) -> Difference | None:
        if isinstance(value, float):
            return None if value == back or (value != value and back != back) else _changed(value, back)
        if isinstance(value, _SEQUENCES):
            return self._items(value, back)
        if isinstance(value, dict):
            return self._entries(value, back)
        if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
            return self._attributes(dict(_parts(value)), dict(_parts(back)))
        if getattr(type(value), "__eq__", None) is object.__eq__:
            return None  # it cannot be compared
        try:
            return None if value == back else _changed(value, back)
        except Exception:  # not a type that compares by ==, such as an array
            return None

    def _items(self, value: Iterable[Any], back: Iterable[Any]) -> Difference | None:
        ours, theirs = list(value), list(back)
        if len(ours) != len(theirs):
            return "", f"{len(ours)} items come back as {len(theirs)}"
        if isinstance(back, _UNORDERED):
            return self._members(ours, theirs)
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            if (found := self.find(*pair)) is not None:
                return _below(index, found)
        return None

    def _members(self, ours: list[Any], theirs: list[Any]) -> Difference | None:
        by_value = {each: each for each in theirs}
        for each in ours:
            if (found := self.find(each, by_value.get(each, _LOST))) is not None:
                return found
        return None

    def _entries(self, value: dict[Any, Any], back: dict[Any, Any]) -> Difference | None:
        if len(value) != len(back):
            lost = [key for key in value if key not in back and str(key) not in back]
            return _below(lost[0], ("", f"{_short(value[lost[0]])} is lost")) if lost else _merged(value, back)
        keys = {key: key for key in back}
        for key, in_place in zip(value, back, strict=True):
            found = keys.get(key, in_place)
            if type(found) is not type(key):
                found = in_place  # JSON keeps the order, which says what became of a key that is no text
            as_text = self._plain and type(found) is str and not isinstance(key, str)
            problem = None if as_text else self.find(key, found)
            if (problem := problem or self.find(value[key], back[found])) is not None:
                return _below(key, problem)
        return None

    def _attributes(self, value: dict[str, Any], back: dict[str, Any]) -> Difference | None:
        for name, part in value.items():
            if (found := self.find(part, back.get(name, _LOST))) is not None:
                return _below(name, found)
        added = [name for name in back if name not in value]
        return (added[0], "is not in what was written") if added else None

    def _object_of(self, value: dict[Any, Any], back: Any) -> Difference | None:
        parts = dict(_parts(back))
        for key, part in value.items():
            found = self.find(part, parts.get(key, _LOST))
            if found is not None and (key not in parts or part != to_jsonable_python(parts[key], fallback=repr)):
                return _below(key, found)
        return None

    def _plain_form(self, value: Any, back: Any) -> Difference | None:
        if back is None or isinstance(value, (bool, int, float, *_SECRETS)) or type(value) is str:
            return _changed(value, back)
        if isinstance(value, Enum):
            return self.find(value.value, back)
        parts = dict(_parts(value))
        if not parts or not isinstance(back, dict) or _has_serializers(value):
            return None
        written = {name: part for name, part in parts.items() if name in back or not self._is_default(value, name)}
        return self._attributes(written, back)

    def _is_default(self, value: Any, name: str) -> bool:
        """Whether a field has its default: one that is left out then (``exclude_if``) loses nothing."""
        field = getattr(type(value), "__pydantic_fields__", {}).get(name)
        if field is None or field.is_required() or field.default_factory_takes_validated_data:
            return False
        return self.find(getattr(value, name), field.get_default(call_default_factory=True)) is None


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, _SEQUENCES):
        return enumerate(value)
    if isinstance(value, BaseModel):
        names = type(value).__pydantic_fields__
        inside = {name: part for name, part in value.__dict__.items() if name in names}
        return {**inside, **(value.__pydantic_extra__ or {})}.items()
    if is_dataclass(value) and not isinstance(value, type):
        return list(_dataclass_parts(value))
    return ()


def _dataclass_parts(value: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(value):
        if hasattr(value, field.name):
            yield field.name, getattr(value, field.name)


def _has_serializers(value: Any) -> bool:
    decorators = getattr(type(value), "__pydantic_decorators__", None)
    return bool(decorators and (decorators.field_serializers or decorators.model_serializers))


def _is_equal_scalar(value: Any, back: Any) -> bool:
    """Whether a number became another kind of number, or a subclass of a builtin that builtin, and is still equal."""
    if isinstance(value, bool | Enum) or isinstance(back, bool | Enum):
        return False
    numbers = isinstance(value, _NUMBERS) and type(back) in _NUMBERS
    return (numbers or (type(back) in (str, bytes) and isinstance(value, type(back)))) and bool(value == back)


def _text_of(back: Any) -> Any:
    """What JSON has for a scalar such as a date, or ``None``."""
    if isinstance(back, str | bytes | BaseModel | dict | list) or is_dataclass(back):
        return None
    return to_jsonable_python(back, fallback=lambda _: None)


def _below(name: Any, found: Difference) -> Difference:
    return f"{name}.{found[0]}" if found[0] else str(name), found[1]


def _changed(value: Any, back: Any) -> Difference:
    if back is _LOST:
        return "", f"{_short(value)} is lost"
    if isinstance(value, _SECRETS):
        return "", "a secret is not written"
    if type(value) is type(back):
        return "", f"{_short(value)} comes back as {_short(back)}"
    return "", f"a {type(value).__name__} comes back as {type(back).__name__}"


def _merged(value: Any, back: Any) -> Difference:
    return "", f"{len(value)} keys come back as {len(back)}: two keys have one form in JSON"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
