"""Every Python block in the README and the docs runs, page by page, top to bottom, in one namespace a page.

Blocks may await at the top level. A function `test_...()` that a block defines is called after it.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page: Path) -> list[tuple[int, str]]:
    """Each block and the line it starts on."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start()) + 2, match.group(1)) for match in BLOCK.finditer(text)]


HERE = [
    page for page in PAGES if blocks(page) and not page.name.startswith("temporal")
]  # they have a server in tests/temporal


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, monkeypatch)


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch, **substitutions: str) -> None:
    """Run a page's blocks in one module, with some words replaced."""
    module = types.ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(__import__("sys").modules, module.__name__, module)

    async def run() -> None:
        for line, source in blocks(page):
            for word, other in substitutions.items():
                source = source.replace(word, other)
            code = compile("\n" * (line - 1) + source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, vars(module))
            if inspect.iscoroutine(result):
                await result
            await run_tests(vars(module), source)

    asyncio.run(run())


async def run_tests(names: dict[str, Any], source: str) -> None:
    for name in re.findall(r"^(?:async )?def (test_\w+)\(\)", source, re.MULTILINE):
        outcome = names[name]()
        if inspect.iscoroutine(outcome):
            await outcome


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_names_only_commands_that_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets
