"""The rules by which a mutant is made of a function: one small change each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

__all__ = ["Change", "changes_in", "mutated_code"]

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Change:
    """One mutant.

    Attributes:
        path: The file.
        function: The qualified name of the function that is changed.
        place: Which node of the function, in the order of ``ast.walk``.
        line: Its line.
        before: The code before.
        after: The code after.
    """

    path: Path
    function: str
    place: int
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} in {self.function}: {self.before}  ->  {self.after}"


def _changed(node: ast.AST) -> ast.AST | None:
    """A node in the place of this one; ``None`` if no rule fits."""
    made = deepcopy(node)
    match made:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            made.ops = [COMPARISONS[type(op)]()]
        case ast.BoolOp():
            made.op = ast.Or() if isinstance(made.op, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not()):
            return made.operand
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            made.op = ARITHMETIC[type(op)]()
        case ast.Constant(value=bool() as value):
            made.value = not value
        case ast.Constant(value=int() as value):
            made.value = value + 1
        case ast.Expr(value=ast.Call() | ast.Await()):  # a statement that is only there for what it does
            return ast.Pass()
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            made.value = ast.Constant(None)
        case ast.If(orelse=[]):
            made.test = ast.Constant(True)
        case ast.Break():
            return ast.Continue()
        case _:
            return None
    return made


def changes_in(path: Path) -> Iterator[Change]:
    """Every change that the rules allow in the functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, function in _functions(tree, ""):
        types = set(_annotations(function))
        for place, node in enumerate(ast.walk(function)):
            made = _changed(node) if node is not function and node not in types else None
            if made is not None:
                line = getattr(node, "lineno", function.lineno)
                yield Change(path, name, place, line, _short(node), _short(made))


def _annotations(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of all annotations, which nothing evaluates."""
    for node in ast.walk(function):
        for field in ("annotation", "returns"):
            annotation = getattr(node, field, None)
            if annotation is not None:
                yield from ast.walk(annotation)


def mutated_code(change: Change) -> CodeType:
    """The code object of the changed function."""
    code = compile(_changed_tree(change), str(change.path), "exec", dont_inherit=True)
    return next(each for each in _codes(code) if each.co_qualname == change.function)


def _changed_tree(change: Change) -> ast.Module:
    tree = ast.parse(change.path.read_text(encoding="utf-8"))
    function = next(node for name, node in _functions(tree, "") if name == change.function)
    target = list(ast.walk(function))[change.place]
    made = _changed(target)
    assert made is not None
    ast.copy_location(made, target)
    _replace(function, target, made)
    return ast.fix_missing_locations(tree)


Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """The functions at the top of a module and of its classes, with their qualified names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, Definition):
            yield f"{prefix}{node.name}", node


def _replace(root: ast.AST, target: ast.AST, made: ast.AST) -> None:
    for parent in ast.walk(root):
        for field, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, field, made)
            elif isinstance(value, list):
                value[:] = [made if each is target else each for each in value]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _short(node: ast.AST) -> str:
    """A node on one line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:89]}…"
