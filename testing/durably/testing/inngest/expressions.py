"""The small part of CEL that triggers, waits and keys are written in."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from durably.core.events import same_json

__all__ = ["InvalidExpressionError", "evaluate"]


class InvalidExpressionError(ValueError):
    """The text is not an expression, or one that this evaluator does not know."""


_WORDS = {"&&": " and ", "||": " or ", "null": "None", "true": "True", "false": "False", "async": "async_"}
_TOKENS = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|&&|\|\||\b(?:null|true|false|async)\b')


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression; a path that leads nowhere is ``None``.

    Args:
        text: Such as ``event.data.id == async.data.id``.
        names: What ``event`` and ``async`` stand for.

    Raises:
        InvalidExpressionError: If it cannot be read.
    """
    try:
        tree = ast.parse(_TOKENS.sub(lambda found: _WORDS.get(found[0], found[0]), text).strip(), mode="eval")
    except SyntaxError as error:
        raise InvalidExpressionError(f"{text!r}: {error}") from None
    return _value(tree.body, {**names, "async_": names.get("async")})


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items):
            return [_value(each, names) for each in items]
        case ast.Dict(keys=keys, values=values):
            return {_value(key, names): _value(each, names) for key, each in zip(keys, values, strict=True) if key}
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Attribute(value=inner, attr=key):
            return _at(_value(inner, names), key)
        case ast.Subscript(value=inner, slice=key):
            return _at(_value(inner, names), _value(key, names))
        case ast.BoolOp(op=op, values=values):
            results = (bool(_value(each, names)) for each in values)
            return all(results) if isinstance(op, ast.And) else any(results)
        case ast.UnaryOp(op=ast.Not() | ast.USub() as op, operand=inner):
            value = _value(inner, names)
            return -value if isinstance(op, ast.USub) else not value
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _compare(op, _value(left, names), _value(right, names))
    raise InvalidExpressionError(f"{ast.unparse(node)!r} is not an expression that is known here")


def _at(value: Any, key: Any) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _compare(op: ast.cmpop, left: Any, right: Any) -> bool:
    match op:
        case ast.Eq():
            return same_json(left, right)
        case ast.NotEq():
            return not same_json(left, right)
        case ast.In():
            return isinstance(right, list | dict) and any(same_json(left, each) for each in right)
    raise InvalidExpressionError("only ==, != and 'in' are known here")
