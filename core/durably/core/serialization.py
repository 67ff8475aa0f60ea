"""Values to JSON text and back: the only place that decides what a record may hold.

Every value a caller gets from a step has passed through here, in the first run as on replay, so the two
cannot differ.
"""

from __future__ import annotations

import json
import marshal
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, Protocol, get_args, get_origin, runtime_checkable

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, SchemaValidator, from_json

from durably.core.annotations import hint_of, reads_world
from durably.core.differences import Difference, find_difference, find_nan
from durably.core.error_text import error_text, type_name
from durably.core.errors import DefinitionError, PayloadTooLargeError, SerializationError
from durably.core.rebuild import contains, judging_validator, rebuilding_validator

__all__ = [
    "SHORT",
    "Codec",
    "Digested",
    "codec_for",
    "digest",
    "encode_input",
    "return_type",
    "same_input",
    "short_digest",
]

INPUT_TEXT_LIMIT = 256
"""Inputs longer than this many characters are kept as a digest."""

DEEPEST = 150
"""How many lists and objects deep a value may be nested."""

_READABLE = 200
"""How deep pydantic reads. The difference is left for what stands around a value: an event, a batch, a failed run."""

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")


@runtime_checkable
class Digested(Protocol):
    """An argument that knows its own digest, so that a long conversation is not hashed again at every turn."""

    def __digest__(self) -> str:
        """A short text that is equal exactly when the value is."""
        ...


class Codec:
    """Writes and reads values of one type.

    What it writes has the fields by their names and nothing that is computed. What it reads of that it builds again and
    does not judge a second time; data from outside it judges, by the names the type gives to the outside.
    """

    def __init__(self, tp: Any) -> None:
        self.type = tp

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return _adapter(self.type)

    @cached_property
    def _write(self) -> Callable[..., bytes]:
        return self._adapter.serializer.to_json

    @cached_property
    def _rebuild(self) -> Callable[..., Any]:
        return rebuilding_validator(self.type, self._adapter).validate_json

    @cached_property
    def _judge(self) -> SchemaValidator:
        return judging_validator(self._adapter)

    @cached_property
    def _plain(self) -> bool:
        return contains(self._adapter.core_schema, "any")

    @cached_property
    def _has_enums(self) -> bool:
        # A member of a StrEnum equals its text, and is written like it.
        return contains(self._adapter.core_schema, "enum")

    @cached_property
    def reads_world(self) -> bool:
        """Whether the verdict on the same data may differ from one time to the next, or change what it is given."""
        return reads_world(self._adapter.core_schema)

    def check(self) -> Codec:
        """This codec, after its schema is made; it is made at the first use otherwise.

        Raises:
            DefinitionError: If pydantic cannot make one.
        """
        assert self._adapter is not None
        return self

    def encode(self, value: Any, *, step: str, limit: int | None = None) -> str:
        """JSON text of a value, as it is recorded.

        Raises:
            SerializationError: If it has no JSON form, or holds NaN or an infinity.
            PayloadTooLargeError: If it has more than ``limit`` bytes.
        """
        return self._text(value, step, limit, by_alias=False, round_trip=True)

    def show(self, value: Any, *, step: str) -> str:
        """JSON text of a value as the type shows it to others: with what is computed. Raises what :meth:`encode` does.

        It is for a model to read, or to compare, and is not read back.
        """
        return self._text(value, step, None)

    def _text(self, value: Any, step: str, limit: int | None, **options: Any) -> str:
        try:
            data = self._write(value, warnings=False, **options)
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            raise SerializationError(_advice(value, error), step=step) from error
        if limit is not None and len(data) > limit:
            raise PayloadTooLargeError(step=step, size=len(data), limit=limit)
        if b"NaN" in data or b"Infinity" in data:
            _refuse_nan(data, step)
        if b"null" in data and (found := _looked_at(lambda: find_nan(value), step)) is not None:
            raise SerializationError(f"{_at(found)}: return None or a string instead", step=step)
        return data.decode()

    def decode(self, text: str, *, step: str) -> Any:
        """The value of a recorded JSON text, without judging it again.

        Raises:
            SerializationError: If the text is not one of this type.
        """
        try:
            return self._rebuild(text, by_alias=False, by_name=True)
        except ValidationError as error:
            return self._read_old(text, error, step)

    def _read_old(self, text: str, error: ValidationError, step: str) -> Any:
        """Read what another version of the type wrote: as from outside, by either name of a field."""
        try:
            return self._judge.validate_json(text, by_alias=True, by_name=True)
        except ValidationError:
            raise SerializationError(
                f"the recorded JSON cannot be read back as {_name(self.type)}: {_first(error)}", step=step
            ) from error

    def round_trip(self, value: Any, *, step: str, limit: int | None, redact: Callable[[str], str]) -> tuple[str, Any]:
        """A value as it is recorded, and what will be read back of that.

        Args:
            value: The value.
            step: The step key, for errors.
            limit: The most bytes it may have, or ``None``.
            redact: Masks secrets in the JSON text.

        Raises:
            SerializationError: If it has no JSON form, is nested too deep, cannot be read back as this type, or comes
                back changed.
            PayloadTooLargeError: If it has more than ``limit`` bytes.
        """
        text = self.encode(value, step=step, limit=limit)
        if text.count("[") + text.count("{") > DEEPEST:
            self.check_depth(text, step)
        try:
            back = self.decode(text, step=step)
        except SerializationError as error:
            raise SerializationError(f"{error.message}. {_ANNOTATE}", step=step) from error.__cause__
        same = _is_same(value, back) or self._is_written_alike(value, back, text)
        found = None if same else _looked_at(lambda: find_difference(value, back, plain=self._plain), step)
        if found is not None:
            raise SerializationError(_change(self.type, found), step=step)
        redacted = redact(text)
        return redacted, back if redacted == text else self.decode(redacted, step=step)

    def check_depth(self, text: str, step: str) -> None:
        """Refuse JSON text with many brackets if they nest so deep that it could not be read inside of something else.

        Raises:
            SerializationError: If it is.
        """
        room = _READABLE - DEEPEST
        try:
            from_json("[" * room + text + "]" * room)
        except ValueError as error:
            if "recursion limit" not in str(error):
                return  # reading it as its type says what is wrong
            raise SerializationError(
                f"it is nested more than {DEEPEST} lists and objects deep: make it flatter, such as a list of items "
                "that name their parents",
                step=step,
            ) from None

    def _is_written_alike(self, value: Any, back: Any, text: str) -> bool:
        # Equal models that are also written alike are the same, types included: the text tells 1 from 1.0 and True, the
        # comparison tells secrets and excluded fields. pydantic does both in a tenth of the time of ours.
        if type(value) is not type(back) or not isinstance(value, BaseModel) or self._has_enums:
            return False
        try:
            return bool(value == back) and self.encode(back, step="") == text
        except Exception:  # a comparison of the user's own: ours says where the two differ
            return False

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of this type."""
        return self._adapter.json_schema()

    def parse(self, text: str) -> Any:
        """A value of a JSON text that comes from outside.

        Raises:
            SerializationError: If it does not fit; the message names the field.
        """
        try:
            return self._judge.validate_json(text)
        except ValidationError as error:
            raise SerializationError(f"the text is not {_name(self.type)}: {_first(error)}", step="") from error

    def validate(self, value: Any, *, what: str) -> Any:
        """A value brought to this type, for data that comes from outside.

        Raises:
            SerializationError: If it does not fit; the message names the field.
        """
        try:
            return self._judge.validate_python(value)
        except ValidationError as error:
            raise SerializationError(f"{what} is not {_name(self.type)}: {_first(error)}", step="") from error

    def rebuild(self, data: Any) -> Any:
        """The value of recorded JSON data, without judging it again. Raises what :meth:`decode` raises."""
        return self.decode(_any.encode(data, step=""), step="")


def _adapter(tp: Any) -> TypeAdapter[Any]:
    try:
        try:
            made = TypeAdapter(tp, config=_CONFIG)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            made = TypeAdapter(tp)  # a model, dataclass or TypedDict brings its own configuration
        if not isinstance(made.core_schema, dict):
            made.rebuild(force=True)  # a type that defers its schema has a stand-in for it so far
        return made
    except Exception as error:
        raise DefinitionError(
            f"{_name(tp)} cannot be written as JSON: {error}. Use JSON types, dataclasses, TypedDicts or pydantic "
            "models in annotations of durable code"
        ) from error


def _is_same(value: Any, back: Any) -> bool:
    """Whether a value of plain JSON types, which most are, came back as it was; others are to be compared."""
    # marshal takes exact builtin types alone and tells True, 1 and 1.0 apart. Version 0 has no references: these would
    # depend on who else holds the value. It is many times faster than a comparison in Python.
    try:
        return marshal.dumps(value, 0) == marshal.dumps(back, 0)
    except ValueError:
        return False


_codecs: dict[Any, Codec] = {}


def codec_for(tp: Any) -> Codec:
    """The codec of a type, made once."""
    try:
        codec = _codecs.get(tp)
    except TypeError:  # an unhashable annotation, such as Annotated[..., {}]
        return Codec(tp)
    if codec is None:
        codec = _codecs[tp] = Codec(tp)
    return codec


def return_type(fn: Callable[..., Any]) -> Any:
    """The return annotation of a callable, or ``Any`` where it has none.

    Raises:
        DefinitionError: If it names something that does not exist.
    """
    try:
        return hint_of(fn, "return")
    except Exception as error:
        raise DefinitionError(
            f"the return annotation of {_name(fn)} cannot be resolved ({error}): pass output_type= to the step"
        ) from None


def digest(text: str | bytes) -> str:
    """16 hexadecimal digits: enough to notice a change, not meant to stop an attacker."""
    return blake2b(text.encode() if isinstance(text, str) else text, digest_size=8).hexdigest()


SHORT = "~"
"""What a short digest begins with, and no JSON does."""


def short_digest(text: str) -> str:
    """A digest of 36 bits, for engines where each byte of a record is carried along with every step."""
    short = blake2b(text.encode(), digest_size=6).digest()
    return SHORT + b64encode(short, b"-_").decode()[:6]


def same_input(recorded: str, asked: str) -> bool:
    """Whether a step is asked with the input it was recorded with; an engine may have kept a short digest of that."""
    return recorded == asked or (recorded.startswith(SHORT) and recorded == short_digest(asked))


def encode_input(args: Sequence[Any], *, step: str) -> str:
    """What a record keeps of a body's arguments: their JSON, or its digest where that is long."""
    while args and args[-1] is None:
        args = args[:-1]
    parts = [f"#{arg.__digest__()}" if hasattr(arg, "__digest__") else _any.show(arg, step=step) for arg in args]
    text = ",".join(parts)
    return text if len(text) <= INPUT_TEXT_LIMIT else f"#{digest(text)} of {len(text)} characters"


_any = codec_for(Any)


def _looked_at(look: Callable[[], Difference | None], step: str) -> Difference | None:
    try:
        return look()
    except Exception as error:  # a method of the user's type; as the body's own error it would be tried again
        raise SerializationError(
            f"a value cannot be compared with what is read back of it: {type_name(error)}: {error_text(error)}",
            step=step,
        ) from error


def _refuse_nan(data: bytes, step: str) -> None:
    def refuse(constant: str) -> None:
        raise SerializationError(f"{constant} has no JSON form: return None or a string instead", step=step)

    json.loads(data, parse_constant=refuse)


_ANNOTATE = "The body must return what its return annotation says; change one of the two, or pass output_type="


def _at(found: Difference) -> str:
    where, what = found
    return f"{where}: {what}" if where else what


def _change(tp: Any, found: Difference) -> str:
    return (
        f"a value of {_name(tp)} would change when it is recorded: {_at(found)}. Annotate the type that the value has "
        "(or pass output_type=), and give each part a type that JSON keeps; give secrets to the backend as resources="
    )


def _advice(value: Any, error: Exception) -> str:
    return (
        f"a value of type {_name(type(value))} cannot be written as JSON ({error}). Return JSON types, dataclasses or "
        "pydantic models; give clients and connections to the backend as resources="
    )


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else detail["msg"]


def _name(tp: Any) -> str:
    if get_origin(tp) is Annotated:
        tp = get_args(tp)[0]
    return str(getattr(tp, "__name__", tp))
