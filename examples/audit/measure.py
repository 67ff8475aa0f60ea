"""Numbers about text and about Python source. Every number that the audit reports is counted here."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict

__all__ = ["Matches", "Measurement", "Place", "PythonMeasurement", "lines_of", "measure", "search"]

SHOWN_PLACES = 10
SHOWN_CHARACTERS = 120

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Place(BaseModel):
    """Where something is.

    Attributes:
        path: The file.
        line: The line, from 1.
        text: What stands there, or the name of what begins there.
        size: How long it is: characters of a line, lines of a function or a file.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    line: int = 1
    text: str = ""
    size: int = 0


class PythonMeasurement(BaseModel):
    """What only Python files have.

    Attributes:
        files: How many there are.
        functions: Functions and methods, nested ones included.
        public: Of these, those at the top of a module, without a leading underscore.
        undocumented: Of the public ones, those without a docstring.
        longest_function: The one with the most lines, from ``def`` to its last line.
        unparsable: Files that are not valid Python.
    """

    files: int
    functions: int
    public: int
    undocumented: int
    longest_function: Place | None
    unparsable: list[str]


class Measurement(BaseModel):
    """What can be counted.

    Attributes:
        files: How many there are.
        bytes: Their size.
        lines: Their lines; a last line without a newline counts.
        blank_lines: Lines of nothing but white space.
        largest_file: The file with the most lines.
        longest_line: The line with the most characters.
        python: The Python files among them, or ``None``.
    """

    files: int
    bytes: int
    lines: int
    blank_lines: int
    largest_file: Place | None
    longest_line: Place | None
    python: PythonMeasurement | None


class Matches(BaseModel):
    """Lines that hold one of some texts.

    Attributes:
        lines: How many there are.
        files: In how many files.
        places: The first few.
    """

    lines: int
    files: int
    places: list[Place]


def lines_of(text: str) -> list[str]:
    """The lines, without their newlines."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def measure(texts: Mapping[str, str], beat: Callable[[], None]) -> Measurement:
    """Count everything.

    Args:
        texts: The files by name.
        beat: Called after each file.
    """
    total, blank, largest, longest = 0, 0, None, None
    trees: dict[str, ast.Module] = {}
    unparsable = []
    for path, text in texts.items():
        lines = lines_of(text)
        total += len(lines)
        blank += sum(not line.strip() for line in lines)
        largest = _larger(largest, Place(path=path, size=len(lines)))
        for number, line in enumerate(lines, 1):
            if longest is None or len(line) > longest.size:
                longest = Place(path=path, line=number, size=len(line), text=line[:SHOWN_CHARACTERS])
        if path.endswith(".py"):
            try:
                trees[path] = _parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                unparsable.append(path)
        beat()
    return Measurement(
        files=len(texts),
        bytes=sum(len(text.encode()) for text in texts.values()),
        lines=total,
        blank_lines=blank,
        largest_file=largest,
        longest_line=longest,
        python=_python(trees, unparsable) if trees or unparsable else None,
    )


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler says of others' string escapes
        return ast.parse(text)


def _python(trees: Mapping[str, ast.Module], unparsable: list[str]) -> PythonMeasurement:
    functions = [
        (path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, FunctionNode)
    ]
    longest = None
    for path, node in functions:
        size = (node.end_lineno or node.lineno) - node.lineno + 1
        longest = _larger(longest, Place(path=path, line=node.lineno, text=node.name, size=size))
    tops = [node for tree in trees.values() for node in tree.body if isinstance(node, FunctionNode)]
    public = [node for node in tops if not node.name.startswith("_")]
    return PythonMeasurement(
        files=len(trees) + len(unparsable),
        functions=len(functions),
        public=len(public),
        undocumented=sum(ast.get_docstring(node, clean=False) is None for node in public),
        longest_function=longest,
        unparsable=unparsable,
    )


def _larger(one: Place | None, other: Place) -> Place:
    return other if one is None or other.size > one.size else one


def search(texts: Mapping[str, str], wanted: list[str], beat: Callable[[], None]) -> Matches:
    """Find the lines that hold one of some texts, letter by letter.

    Args:
        texts: The files by name.
        wanted: What to look for; one of them is enough.
        beat: Called after each file.
    """
    places = []
    for path, text in texts.items():
        for number, line in enumerate(lines_of(text), 1):
            if any(each in line for each in wanted):
                places.append(Place(path=path, line=number, text=line.strip()[:SHOWN_CHARACTERS]))
        beat()
    files = len({place.path for place in places})
    return Matches(lines=len(places), files=files, places=places[:SHOWN_PLACES])
