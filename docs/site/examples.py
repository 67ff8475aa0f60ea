"""The examples of the reference: for each name the shortest block of a page that uses it.

The tests run these blocks, so an example cannot be out of date.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BLOCK", "EXAMPLE_PAGES", "Example", "examples", "names_used"]

DOCS = Path(__file__).parent.parent
EXAMPLE_PAGES = sorted(page for page in DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```python(?: [^\n]*)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of a page.

    Attributes:
        page: The page's path in the docs.
        title: Its first heading.
        block: The block with its fence.
    """

    page: str
    title: str
    block: str


def examples() -> dict[str, Example]:
    """The shortest block that uses a name, by the name."""
    found: dict[str, Example] = {}
    for page in EXAMPLE_PAGES:
        text = page.read_text(encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ")
        for match in BLOCK.finditer(text):
            example = Example(str(page.relative_to(DOCS)), title, match[0])
            for name in names_used(match[1]):
                if name not in found or len(example.block) < len(found[name].block):
                    found[name] = example
    return found


def names_used(source: str) -> set[str]:
    """The names that a block does something with; an import alone is no use."""
    return set(_names(ast.parse(source)))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg  # a fixture
