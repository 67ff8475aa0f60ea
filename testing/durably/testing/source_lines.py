"""Lines of the user's code: where a step is asked for, where its body stands, where an error came from."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from types import CodeType, FrameType
from typing import Any

from durably.core import Agent, Function

__all__ = ["caller_line", "definition_line", "error_line", "step_line", "users_line"]

_NOT_USERS = {"durably", "pydantic", "pydantic_core", *sys.stdlib_module_names} - {"__main__"}


def caller_line() -> str:
    """The line of the user's code that is running now, such as ``"app.py:12 in refund"``; empty if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_users(frame):
        frame = frame.f_back
    return "" if frame is None else _line(frame.f_code, frame.f_lineno)


def users_line(depth: int) -> str:
    """The line that called so many frames above this one's caller, if it is the user's; empty if it is not."""
    frame = sys._getframe(depth + 1)
    return _line(frame.f_code, frame.f_lineno) if _is_users(frame) else ""


def error_line(error: BaseException) -> str:
    """The innermost line of the user's code that an error passed; empty if it passed none."""
    found = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if _is_users(frame):
            found = _line(frame.f_code, number)
    return found


def definition_line(thing: Any) -> str:
    """Where a function begins, whatever is wrapped around it; empty if it has no Python code."""
    try:
        plain = inspect.unwrap(thing)
    except ValueError:  # it wraps itself
        return ""
    code = getattr(plain, "__code__", None) or getattr(getattr(plain, "__call__", None), "__code__", None)  # noqa: B004
    return _line(code, code.co_firstlineno) if isinstance(code, CodeType) else ""


def step_line(function: Function[Any, Any] | None, step_id: str) -> str:
    """Where the code of a step stands, as far as its function tells: a tool of an agent, or else the function."""
    if isinstance(function, Agent):
        tool = function.tools.get(step_id.removeprefix("tool-"))
        return "" if tool is None else definition_line(tool.fn)
    return "" if function is None else definition_line(function.handler)


def _is_users(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] not in _NOT_USERS


def _line(code: CodeType, number: int) -> str:
    path = code.co_filename
    here = f"{os.getcwd()}{os.sep}"
    return f"{path.removeprefix(here)}:{number} in {code.co_name}"
