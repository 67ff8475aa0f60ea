"""The arguments of a tool: the pydantic model and the JSON schema that a function's signature gives."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from durably.core.annotations import is_lazy
from durably.core.error_text import error_text, type_name
from durably.core.errors import DefinitionError
from durably.core.messages import JSONObject

__all__ = ["arguments_model", "complaint_about", "complaint_of", "parameter_names"]


def arguments_model(
    fn: Callable[..., object], name: str, hints: Mapping[str, object], where: str, *, hidden: str | None = None
) -> tuple[type[BaseModel], JSONObject]:
    """Return the model of a function's arguments, and its JSON schema.

    Args:
        fn: The function.
        name: The name of the model.
        hints: The function's annotations as types.
        where: What an error calls the tool.
        hidden: A parameter that the model does not see.

    Raises:
        DefinitionError: If a parameter has no type hint, no JSON schema, or a default that is not JSON; or if its
            values could only be checked while the function uses them.
    """
    fields = _fields(fn, hints, where, hidden)
    try:
        arguments, schema = _model(name, fields)
    except Exception as error:  # pydantic's own errors, and whatever a user's type raises
        _check_eager(fields, where)
        culprit = next((each for each, field in fields.items() if not _has_schema(name, {each: field})), None)
        what = "its parameters" if culprit is None else f"its parameters: {_shown(culprit, fields)!r}"
        raise DefinitionError(f"{where}: no JSON schema for {what}: {error_text(error)}") from error
    if is_lazy(None, arguments.__pydantic_core_schema__):
        _check_eager(fields, where)
    return arguments, schema


def complaint_about(arguments: type[BaseModel], given: object, name: str) -> str | None:
    """Return what is wrong with the arguments of a call, in words for the model, or ``None``.

    Args:
        arguments: The model of the arguments.
        given: What the model wrote.
        name: The tool.
    """
    try:
        arguments.model_validate(given)
    except Exception as error:  # a validator may raise anything; only ValueError and AssertionError are pydantic's
        return complaint_of(error, name)
    return None


def complaint_of(error: Exception, name: str) -> str:
    """Return what a failed validation says, in words for the model."""
    said = f"{type_name(error)}: {error_text(error)}"
    if isinstance(error, ValidationError):
        try:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            said = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in details)
        except Exception as broken:  # it renders the errors of users' validators
            said = f"{type_name(broken)}: {error_text(broken)}"
    return f"invalid arguments for {name}: {said}"


def parameter_names(arguments: type[BaseModel]) -> dict[str, str]:
    """Return the parameter that each field of a model of arguments is given to."""
    fields = arguments.model_fields.items()
    return {
        field: info.alias if info.alias and field == _field_name(position, info.alias) else field
        for position, (field, info) in enumerate(fields)
    }


def _model(name: str, fields: dict[str, Any]) -> tuple[type[BaseModel], JSONObject]:
    with warnings.catch_warnings():
        # A parameter may have the name of a BaseModel method, such as `copy`; pydantic warns of that.
        warnings.simplefilter("ignore", UserWarning)
        arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        schema = arguments.model_json_schema()
    schema.pop("title", None)
    # No provider takes NaN, an infinity or half a surrogate pair in a schema: each call of the model would fail.
    json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    return arguments, schema


def _has_schema(name: str, fields: dict[str, Any]) -> bool:
    try:
        _model(name, fields)
    except Exception:  # what is wrong is told by the caller, who has the same error of all fields
        return False
    return True


def _check_eager(fields: Mapping[str, Any], where: str) -> None:
    """Refuse a type that pydantic checks only while the value is used: a wrong item would fail after the effect."""
    for field, (hint, _) in fields.items():
        try:
            schema: object = TypeAdapter(hint).core_schema
        except Exception:  # told by the caller, who has the same error of all fields
            schema = None
        if is_lazy(hint, schema):
            raise DefinitionError(
                f"{where}: parameter {_shown(field, fields)!r} is an iterable, whose items are checked only while the "
                "function uses them: use a list, such as list[int]"
            )


def _fields(fn: Callable[..., object], hints: Mapping[str, object], where: str, hidden: str | None) -> dict[str, Any]:
    """Return the fields of the pydantic model of a function's arguments."""
    fields: dict[str, Any] = {}
    for position, parameter in enumerate(_signature(fn, where).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(
                f"{where}: parameter {parameter} cannot be given by name; spell each parameter out (a decorator shows "
                "those of its function with functools.wraps)"
            )
        if parameter.name == hidden:
            continue
        if parameter.name not in hints:
            raise DefinitionError(f"{where}: {_no_hint(fn, parameter.name, position)}")
        default = ... if parameter.default is parameter.empty else parameter.default
        if isinstance(default, FieldInfo):
            raise DefinitionError(
                f"{where}: parameter {parameter.name!r} has Field(...) as its default, which the function would be "
                f"given too: write '{parameter.name}: Annotated[..., Field(...)]', with the default behind it"
            )
        if default is not ...:
            _check_default(default, f"{where}: the default of parameter {parameter.name!r}")
        if parameter.name.startswith(("_", "model_")):
            # pydantic takes these names for its own and drops them: the model would not see the parameter.
            fields[_field_name(position, parameter.name)] = (
                hints[parameter.name],
                Field(default, alias=parameter.name),
            )
        else:
            fields[parameter.name] = (hints[parameter.name], default)
    return fields


def _signature(fn: Callable[..., object], where: str) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError) as error:
        raise DefinitionError(f"{where}: its parameters cannot be seen ({error}): write a function with them") from None


def _no_hint(fn: object, parameter: str, position: int) -> str:
    if position == 0 and parameter in ("self", "cls"):
        return (
            f"it has the parameter {parameter!r}, so it is a method, which has no object yet where the class is "
            "written: leave the method as it is and make a tool of the object's, tool(shop.look), or write a function "
            "outside the class"
        )
    if getattr(fn, "__name__", "") == "<lambda>":
        return f"a lambda cannot have type hints, and the model needs one for {parameter!r}: write it with 'def'"
    return f"parameter {parameter!r} has no type hint; the model needs one: '{parameter}: str'"


def _field_name(position: int, parameter: str) -> str:
    return f"parameter{position}{parameter}"


def _shown(field: str, fields: Mapping[str, Any]) -> str:
    alias = getattr(fields[field][1], "alias", None)
    return alias if isinstance(alias, str) else field


def _check_default(default: object, what: str) -> None:
    try:
        to_json(default)
    except ValueError as error:  # pydantic's is one as well
        raise DefinitionError(f"{what} cannot be written as JSON ({error}): use None or a JSON value") from None
