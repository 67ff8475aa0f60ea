"""Checks that all formats share, and the error that a bad request gets."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

__all__ = [
    "Frame",
    "InvalidRequest",
    "as_object",
    "check_base64",
    "check_schema",
    "only",
    "pieces",
    "take",
]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class InvalidRequest(Exception):  # noqa: N818  # named as the providers name it
    """A request that the real server would refuse.

    Args:
        message: Why, and where.
        status: The HTTP status.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Frame(NamedTuple):
    """One server-sent event.

    Attributes:
        event: Its name, or ``""`` for none.
        data: Its JSON, or a bare word such as ``[DONE]``.
    """

    event: str
    data: Any


def take(data: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A required field of a given type."""
    if not isinstance(data, Mapping) or key not in data:
        raise InvalidRequest(f"{where}.{key}: field required")
    value = data[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise InvalidRequest(f"{where}.{key}: wrong type {type(value).__name__}")
    return value


def only(data: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse fields that the format does not have."""
    extra = sorted(set(data) - set(known))
    if extra:
        raise InvalidRequest(f"{where}.{extra[0]}: extra inputs are not permitted")


def as_object(text: str) -> dict[str, Any] | str:
    """A call's arguments as an object, or their text where they are none."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def check_base64(data: str, where: str) -> None:
    """Refuse what is not base64."""
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where}: invalid base64 data") from None
    if not data:
        raise InvalidRequest(f"{where}: no data")


def check_schema(name: Any, schema: Any, where: str) -> None:
    """Refuse a tool whose name or schema the providers refuse."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(f"{where}.name: {name!r} does not match {NAME.pattern}")
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise InvalidRequest(f"{where}: the schema of {name} must have type 'object'")
    if not isinstance(schema.get("properties", {}), Mapping):
        raise InvalidRequest(f"{where}: the properties of {name} must be an object")


def pieces(text: str, size: int = 12) -> Iterable[str]:
    """A text as a stream cuts it."""
    return (text[start : start + size] for start in range(0, len(text), size))
