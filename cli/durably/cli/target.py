"""What a user names as ``MODULE:OBJECT``: found and imported, or refused with a sentence that says why."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from durably.core import Backend, Function
from durably.core.error_text import error_text, type_name

__all__ = ["SHOW_WHERE", "TargetError", "failing", "load_functions", "load_object", "load_target"]


SHOW_WHERE = "DURABLY_TRACEBACK=1 shows where"


class TargetError(Exception):
    """The object cannot be used; the message says why."""


def load_target(name: str) -> Any:
    """Returns the agent, durable function or factory that a name stands for.

    Args:
        name: ``MODULE:OBJECT``. See :func:`load_object`.

    Raises:
        TargetError: If there is no such object, its module cannot be imported, or it is none of the three.
    """
    target = load_object(name)
    if not isinstance(target, Function) and not _can_be_factory(target):
        raise TargetError(
            f"{name} is {target!r}: give an agent, a function made with @function, or a plain function that returns "
            "one of them, alone or as (agent, world)"
        )
    return target


def load_object(name: str) -> Any:
    """Returns the object that a name stands for.

    Args:
        name: ``MODULE:OBJECT``. The module is looked for in the current directory too; the object may be an attribute
            of another one, such as ``app:agents.support``.

    Raises:
        TargetError: If there is no such object, or its module cannot be imported.
    """
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise TargetError(f"{name!r} names no object: write MODULE:OBJECT, such as app:support")
    target: Any = _import(module_name)
    seen = module_name
    for attribute in path.split("."):
        if not hasattr(target, attribute):
            close = difflib.get_close_matches(attribute, dir(target), n=3)
            raise TargetError(f"{seen!r} has no {attribute!r}" + (f"; close: {', '.join(close)}" if close else ""))
        target = getattr(target, attribute)
        seen = f"{seen}.{attribute}"
    return target


def load_functions(name: str) -> list[Function[Any, Any]]:
    """Returns the functions that a name stands for: one of them, several in a list, or those of a backend.

    Raises:
        TargetError: If it stands for none.
    """
    target = load_object(name)
    if callable(target) and not isinstance(target, Function | Backend):
        with failing(name):
            target = target()
    if isinstance(target, Backend):
        return list(target.functions.values())
    found = [target] if isinstance(target, Function) else target
    if not isinstance(found, list | tuple) or not found or not all(isinstance(each, Function) for each in found):
        raise TargetError(f"{name} is {target!r}: give an agent, a function made with @function, a list, or a backend")
    return list(found)


@contextmanager
def failing(name: str) -> Iterator[None]:
    """Name what a user's own function raises, which may be an error that says nothing of where it comes from."""
    try:
        yield
    except Exception as error:
        raise TargetError(f"{name} failed: {type_name(error)}: {error_text(error)} ({SHOW_WHERE})") from error


def _can_be_factory(target: Any) -> bool:
    return callable(target) and not inspect.isclass(target) and not inspect.iscoroutinefunction(target)


def _import(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise TargetError(f"there is no module {error.name!r}, neither here nor in the Python path") from error
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> TargetError:
    if isinstance(error, SyntaxError):
        return TargetError(f"{name!r} cannot be imported: {error}")
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {error}"
    return TargetError(f"{name!r} cannot be imported: {said} ({last.filename}, line {last.lineno})")
