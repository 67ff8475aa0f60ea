"""The public surface: each public name stands on a page of the docs, and the docs name nothing that is not there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.test_docs import PAGES, blocks
from tests.test_layout import SOURCES, name

MODULES = [
    "durably.backends",
    "durably.core",
    "durably.core.errors",
    "durably.core.flow",
    "durably.core.history",
    "durably.core.messages",
    "durably.core.model",
    "durably.core.observer",
    "durably.mcp",
    "durably.providers",
    "durably.telemetry",
    "durably.telemetry.id_generator",
    "durably.testing",
    "durably.testing.foreign",
]
"""What users import from. A name of any other module is not promised to stay."""

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
DOTTED = re.compile(r"\bdurably\.(?:core|backends|providers|mcp|telemetry|testing|cli)(?:\.\w+)*")
REFERENCE = re.compile(r":(?:class|data|func|meth|mod):`~?(durably[\w.]+)`")


@cache
def code_of(page: Path) -> str:
    """What a page sets in code: its Python blocks, and the words between backticks."""
    text = page.read_text(encoding="utf-8")
    return "\n".join([*(source for _, source in blocks(page)), *INLINE.findall(FENCED.sub("", text))])


def imports(page: Path) -> Iterator[tuple[str, str]]:
    """Each (module, name) that the Python blocks of a page import from durably."""
    for _, source in blocks(page):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("durably"):
                yield from ((node.module or "", alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names if alias.name.startswith("durably"))


def is_there(path: str) -> bool:
    """Whether a dotted path leads to a module, or to an attribute of one."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize("module", MODULES)
def test_the_public_names_are_sorted_and_there(module: str) -> None:
    loaded = importlib.import_module(module)
    constants_first = sorted(loaded.__all__, key=lambda name: (not name.isupper(), name))
    assert list(loaded.__all__) == constants_first
    assert [each for each in loaded.__all__ if not hasattr(loaded, each)] == []
    things = {each: getattr(loaded, each) for each in loaded.__all__}
    undocumented = [each for each, thing in things.items() if isinstance(thing, type) and not thing.__doc__]
    assert undocumented == []


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_stands_on_a_page(module: str) -> None:
    written = {word for page in PAGES for word in re.findall(r"\w+", code_of(page))}
    assert [each for each in importlib.import_module(module).__all__ if each not in written] == []


def test_the_top_level_repeats_no_name_under_another_meaning() -> None:
    core = importlib.import_module("durably.core")
    for module in MODULES:
        if module.startswith("durably.core."):
            home = importlib.import_module(module)
            both = set(core.__all__) & set(home.__all__)
            assert [each for each in both if getattr(core, each) is not getattr(home, each)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_is_there(page: Path) -> None:
    missing = [f"{module}.{each}".strip(".") for module, each in imports(page)]
    assert [path for path in missing if not is_there(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_by_its_path_is_there(page: Path) -> None:
    assert [path for path in DOTTED.findall(code_of(page)) if not is_there(path)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_reference_in_a_docstring_leads_somewhere(path: Path) -> None:
    assert [each for each in REFERENCE.findall(path.read_text(encoding="utf-8")) if not is_there(each)] == []


def test_the_modules_that_users_import_from_are_listed_in_the_docs() -> None:
    pages = "\n".join(code_of(page) for page in PAGES)
    assert [module for module in MODULES if module not in pages] == []
