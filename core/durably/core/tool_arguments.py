"""The arguments of a tool: the pydantic model and the JSON schema that a function's signature gives."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, create_model
from pydantic_core import PydanticSerializationError, to_json

from durably.core.errors import DefinitionError
from durably.core.messages import JSONObject

__all__ = ["arguments_model"]


def arguments_model(
    fn: Callable[..., object], name: str, hints: Mapping[str, object], where: str
) -> tuple[type[BaseModel], JSONObject]:
    """Return the model of a function's arguments, and its JSON schema.

    Args:
        fn: The function.
        name: The name of the model.
        hints: The function's annotations as types.
        where: What an error calls the tool.

    Raises:
        DefinitionError: If a parameter has no type hint, no JSON schema, or a default that is not JSON.
    """
    fields = _fields(fn, hints, where)
    try:
        with warnings.catch_warnings():
            # A parameter may have the name of a BaseModel method, such as `copy`; pydantic warns of that.
            warnings.simplefilter("ignore", UserWarning)
            arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
            schema = arguments.model_json_schema()
    except (PydanticUserError, NameError, TypeError) as error:
        raise DefinitionError(f"{where}: no JSON schema for its parameters: {error}") from error
    schema.pop("title", None)
    return arguments, schema


def _fields(fn: Callable[..., object], hints: Mapping[str, object], where: str) -> dict[str, Any]:
    """Return the fields of the pydantic model of a function's arguments."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(f"{where}: parameter {parameter} cannot be given by name; spell each parameter out")
        if parameter.name not in hints:
            raise DefinitionError(
                f"{where}: parameter {parameter.name!r} has no type hint; the model needs one: '{parameter.name}: str'"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        if default is not ...:
            _check_default(default, f"{where}: the default of parameter {parameter.name!r}")
        fields[parameter.name] = (hints[parameter.name], default)
    return fields


def _check_default(default: object, what: str) -> None:
    try:
        to_json(default)
    except PydanticSerializationError as error:
        raise DefinitionError(f"{what} cannot be written as JSON ({error}): use None or a JSON value") from None
