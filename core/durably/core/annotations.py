"""The annotations of users' functions, as types, and what kind of callable a function is."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from functools import partial
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

from durably.core.errors import DefinitionError

__all__ = [
    "awaited",
    "hint_of",
    "innermost",
    "is_async",
    "is_lazy",
    "reads_world",
    "resolve_hints",
    "schema_nodes",
    "uncached",
]

_LAZY = (Iterable, Iterator, Generator, AsyncIterable, AsyncIterator, AsyncGenerator)

_NOT_VALIDATION = frozenset({"metadata", "serialization", "config"})
"""Keys of a core schema below which nothing says how a value is validated."""


def resolve_hints(
    fn: Callable[..., object],
    names: Mapping[str, object],
    where: str,
    *,
    given: Collection[str] = (),
    options: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Return the annotations of a function as types. What it returns stands under ``return``.

    Args:
        fn: The function, or a callable around one.
        names: Local names that its annotations may use.
        where: What the error calls the function.
        given: The annotations that are not needed, since their types were given as options.
        options: The option, for each annotation that has one, that takes the type instead.

    Raises:
        DefinitionError: If an annotation names something that does not exist.
    """
    hints: dict[str, object] = {}
    for name in _annotations_of(fn):
        if name in given:
            continue
        try:
            hints[name] = hint_of(fn, name, names)
        except Exception as error:  # an annotation is code: it may raise anything
            what = "the return" if name == "return" else f"parameter {name!r}"
            instead = (options or {}).get(name)
            raise DefinitionError(
                f"{where}: an annotation cannot be resolved, that of {what} ({error}). Import the name at run time, "
                "not only under TYPE_CHECKING; a local class must be visible where the decorator stands"
                + (f"; or give the type as {instead}=" if instead else "")
            ) from None
    return hints


def hint_of(fn: Callable[..., object], name: str, names: Mapping[str, object] | None = None) -> object:
    """Return one annotation of a function as a type, or ``Any`` if there is none.

    The others are not looked at: a parameter's fault must not be blamed on the return, or the other way round.

    Args:
        fn: The function, or a callable around one.
        name: The parameter, or ``return``.
        names: Local names that the annotation may use.

    Raises:
        NameError: If it names something that does not exist; a text that is no type raises other errors.
    """
    annotations = _annotations_of(fn)
    if name not in annotations:
        return Any
    inner = innermost(fn)
    alone = SimpleNamespace(__annotations__={name: annotations[name]}, __type_params__=_type_params(inner))
    return get_type_hints(alone, getattr(inner, "__globals__", {}), dict(names or {}), include_extras=True)[name]


def awaited(tp: object) -> Any:
    """Return the type that awaiting gives, for the annotation of a function that returns an awaitable."""
    if get_origin(tp) is Coroutine and len(get_args(tp)) == 3:
        return get_args(tp)[2]
    if get_origin(tp) is Awaitable:
        return get_args(tp)[0]
    return Any if tp in (Coroutine, Awaitable) else tp


def innermost(fn: Callable[..., object]) -> Callable[..., object]:
    """Return the function that a partial, a decorator with ``functools.wraps`` or a callable object runs at last."""
    for _ in range(100):  # __wrapped__ is a user's attribute: it may lead round in a circle
        if isinstance(fn, partial):
            fn = fn.func
        elif callable(wrapped := getattr(fn, "__wrapped__", None)):
            fn = wrapped
        elif not inspect.isroutine(fn) and not inspect.isclass(fn):
            return getattr(type(fn), "__call__", fn)  # noqa: B004  # the class's, with its annotations
        else:
            break
    return fn


def is_async(fn: Callable[..., object]) -> bool:
    """Return whether a callable is a coroutine function, or stands around one."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(innermost(fn))


def uncached(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the coroutine function below a ``functools.lru_cache``; any other callable is returned as it is.

    Such a cache keeps the coroutine, not its value, and a coroutine can be awaited once.
    """
    inner = getattr(fn, "__wrapped__", None)
    return inner if callable(inner) and hasattr(fn, "cache_info") and is_async(fn) else fn


def is_lazy(tp: object, schema: object = None) -> bool:
    """Return whether a value of a type is checked only while it is used, item by item: too late to refuse it.

    Args:
        tp: The type.
        schema: Its pydantic core schema, if there is one. It also shows what stands in the fields of models.
    """
    origin = get_origin(tp) or tp
    if any(origin is lazy for lazy in _LAZY) or any(is_lazy(each) for each in get_args(tp)):
        return True
    return any(node.get("type") == "generator" for node in schema_nodes(schema))


def reads_world(schema: object) -> bool:
    """Whether the verdict of a pydantic core schema on the same data may differ from one time to the next.

    A validator that is a function may look at files or at a table, or change what it is given, and a date may have to
    be in the future.
    """
    return any(
        str(node.get("type", "")).startswith("function-")
        or node.get("now_op") is not None
        or node.get("custom_init") is True
        or bool(node.get("post_init"))
        or (node.get("default_factory") is not None and node.get("validate_default") is True)
        or node.get("missing") is not None
        for node in schema_nodes(schema)
    )


def schema_nodes(schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a pydantic core schema that say how a value is validated."""
    left = [schema]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left += [each for key, each in node.items() if key not in _NOT_VALIDATION]
        elif isinstance(node, list | tuple):
            left += node


def _annotations_of(fn: Callable[..., object]) -> Mapping[str, object]:
    # A decorator may state other types than the function below it. An object's own are those of its attributes.
    outer = getattr(fn, "__annotations__", None) if inspect.isroutine(fn) or hasattr(fn, "__wrapped__") else None
    if isinstance(outer, dict) and outer:
        return outer
    found = getattr(innermost(fn), "__annotations__", None)
    return found if isinstance(found, dict) else {}


def _type_params(inner: Callable[..., object]) -> tuple[object, ...]:
    found = getattr(inner, "__type_params__", ())
    return found if isinstance(found, tuple) else ()
