"""The registry of step functions: names by which any worker finds the body of a step, and its arguments as JSON.

A body has a name when it is a function of a module, a method of a served agent, tool or resource, or a method of a
global of the module in which the function is written. Anything else (a lambda, a nested function) is a closure: it can
only run where its workflow runs. The library's own activities are registered here too, under names of their own.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import reduce
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from durably.core import Agent, Function, SerializationError
from durably.core.annotations import hint_of
from durably.core.messages import Message, SessionPrefix, Transcript
from durably.core.serialization import codec_for

__all__ = ["StepFunctionNotFoundError", "StepRegistry", "decode_argument", "encode_argument", "parameter_types"]


class StepFunctionNotFoundError(LookupError):
    """This worker has no body of that name; another one may have it."""


class StepRegistry:
    """Finds names for bodies, and bodies by name.

    Args:
        functions: What the worker serves.
        resources: What it was given by name.
        system: The library's own activities, by name.
    """

    def __init__(
        self,
        functions: Mapping[str, Function[Any, Any]],
        resources: Mapping[str, Any],
        system: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._system = system
        self._owners: dict[str, Any] = {f"${name}": resource for name, resource in resources.items()}
        for function in functions.values():
            self._owners[f"@{function.id}"] = function
            if isinstance(function, Agent):
                self._owners.update({f"@{function.id}/{name}": tool for name, tool in function.tools.items()})
                self._owners.update({f"@{function.id}/~{each.name}": each for each in function.toolsets})
        self._names = {id(owner): name for name, owner in self._owners.items()}

    def name_of(self, fn: Callable[..., Any], function: Function[Any, Any]) -> str | None:
        """The name of a body of a function, or ``None`` for a closure."""
        owner = getattr(fn, "__self__", None)
        if owner is not None and not inspect.isclass(owner) and not inspect.ismodule(owner):
            # The name must lead back to this very function: under a patched one the activity would run another.
            name = self._names.get(id(owner)) or _global_name(owner, function)
            method = getattr(fn, "__name__", "")
            return f"{name}.{method}" if name and getattr(owner, method, None) == fn else None
        plain = inspect.unwrap(fn)
        names = getattr(getattr(plain, "__func__", plain), "__globals__", None)
        path = getattr(fn, "__qualname__", "")
        if names is None or _standard(names["__name__"]) or _walk(names, path) != fn:
            return None
        return f"{_module_name(names)}:{path}"

    def find(self, name: str) -> Callable[..., Any]:
        """The body of a name.

        Raises:
            StepFunctionNotFoundError: If this worker does not have it.
        """
        found = self._system.get(name) or self._find(name)
        if not callable(found):
            raise StepFunctionNotFoundError(
                f"this worker has no body {name!r}: it runs other code than the worker that scheduled it, or was "
                "given other functions= or resources="
            )
        body: Callable[..., Any] = found
        return body

    def _find(self, name: str) -> Any:
        owner, _, method = name.rpartition(".")
        return getattr(self._owners.get(owner), method, None) if name[0] in "@$" else _import(name)


def _global_name(owner: Any, function: Function[Any, Any]) -> str | None:
    names = getattr(inspect.unwrap(function.handler), "__globals__", {})
    found = next((name for name, value in names.items() if value is owner), None)
    return f"{_module_name(names)}:{found}" if found else None


def _module_name(names: Mapping[str, Any]) -> str:
    """The name by which any worker imports a module: one run by ``python -m`` is ``__main__`` to itself alone."""
    spec = names.get("__spec__")
    return spec.name if names["__name__"] == "__main__" and spec is not None else str(names["__name__"])


def _walk(names: Mapping[str, Any], path: str) -> Any:
    first, *rest = path.split(".")
    return reduce(lambda owner, name: getattr(owner, name, None), rest, names.get(first))


def _import(name: str) -> Any:
    module, _, path = name.partition(":")
    # Whoever can write to the namespace chooses this name: without the check, os:system could be called.
    if _standard(module):
        return None
    main = sys.modules["__main__"]
    if module == _module_name(vars(main)):  # a second copy of it would have globals of its own
        return _walk(vars(main), path)
    try:
        loaded = sys.modules.get(module) or import_module(module)
    except ImportError:
        return None
    return _walk(vars(loaded), path)


def _standard(module: str) -> bool:
    return module != "__main__" and module.partition(".")[0] in sys.stdlib_module_names


@dataclasses.dataclass
class _Conversation:
    """A transcript as it travels."""

    system: str
    messages: list[Message]
    skipped: int = 0
    before: SessionPrefix | None = None
    pruned: int | None = None
    spent: int | None = None


_any = codec_for(Any)
_conversation = codec_for(_Conversation)
_types: WeakKeyDictionary[Any, tuple[Any, ...]] = WeakKeyDictionary()


def parameter_types(fn: Callable[..., Any], count: int) -> tuple[Any, ...]:
    """The annotations of a body's first parameters; ``Any`` where there is none, or none that can be resolved."""
    function = inspect.unwrap(getattr(fn, "__func__", fn))
    known = _types.get(function)
    if known is None or len(known) < count:
        parameters = list(inspect.signature(fn).parameters.values())
        variadic = next((each for each in parameters if each.kind is each.VAR_POSITIONAL), None)
        named = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        rest = [variadic] * (count - len(named)) if variadic else []
        known = _types[function] = tuple(_type_of(function, each.name) for each in [*named, *rest])
    return known[:count]


def _type_of(function: Callable[..., Any], parameter: str) -> Any:
    # A name that exists only for type checkers says nothing here, and says it of this parameter alone.
    with suppress(Exception):
        return hint_of(function, parameter)
    return Any


def encode_argument(value: Any, tp: Any, *, step: str) -> str:
    """JSON text of one argument.

    Raises:
        SerializationError: If it has none, or the body's parameter does not say what to rebuild it to.
    """
    if isinstance(value, Transcript):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(_Conversation)}
        return _conversation.encode(_Conversation(**fields), step=step)
    if tp is Any and not isinstance(value, str | int | float | bool | list | dict | tuple | None):
        raise SerializationError(
            f"an argument is a {type(value).__name__}, and the body's parameter has no type hint to rebuild it to on "
            "another worker: annotate the parameter, or pass a lambda, which runs where the function runs",
            step=step,
        )
    return _any.encode(value, step=step)


def decode_argument(text: str, tp: Any, *, step: str) -> Any:
    """One argument from its JSON text.

    Raises:
        SerializationError: If it does not fit the parameter.
    """
    if tp is Transcript:
        conversation = _conversation.decode(text, step=step)
        return Transcript(**vars(conversation))
    return codec_for(tp).decode(text, step=step)
