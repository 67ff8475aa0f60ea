"""Every Python block in the README and the docs runs as a reader would paste it.

The blocks of a page, top to bottom, are one program. It is compiled as a file is, so nothing awaits at the top level. A
function `test_...()` that a block defines is called after it.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"""(?:\]\(|src=")([^)"#\s]+)(?:#[^)"]*)?[)"]""")


def blocks(page: Path) -> list[tuple[int, str]]:
    """Each block and the line it starts on."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start()) + 2, match.group(1)) for match in BLOCK.finditer(text)]


HERE = [
    page for page in PAGES if blocks(page) and not page.name.startswith("temporal")
]  # they have a server in tests/temporal
FIRST_PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
"""What a reader may paste into a notebook before anything else."""


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, monkeypatch)


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch, **substitutions: str) -> None:
    """Run a page's blocks in one module, with some words replaced."""
    module = types.ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, source in blocks(page):
        for word, other in substitutions.items():
            source = source.replace(word, other)
        exec(compile("\n" * (line - 1) + source, str(page), "exec", dont_inherit=True), vars(module))
        run_tests(vars(module), source)


def run_tests(names: dict[str, Any], source: str) -> None:
    for name in re.findall(r"^(?:async )?def (test_\w+)\(\)", source, re.MULTILINE):
        outcome = names[name]()
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)


class InNotebook(ast.NodeTransformer):
    """Writes `await x` for `asyncio.run(x)`, as the pages tell readers in a notebook to do."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return ast.Await(node.args[0]) if ast.unparse(node.func) == "asyncio.run" else node


@pytest.mark.parametrize("page", FIRST_PAGES, ids=lambda page: page.name)
def test_every_block_runs_in_a_notebook(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "In a notebook" in page.read_text(encoding="utf-8")
    notebook = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", notebook)

    async def run_cells() -> None:
        for _, source in blocks(page):
            tree = ast.fix_missing_locations(InNotebook().visit(ast.parse(source)))
            code = compile(tree, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            cell = eval(code, vars(notebook))
            if inspect.iscoroutine(cell):
                await cell

    asyncio.run(run_cells())


@pytest.mark.parametrize("page", FIRST_PAGES, ids=lambda page: page.name)
def test_a_first_page_is_a_program_and_a_test_file(page: Path, tmp_path: Path) -> None:
    program = tmp_path / "test_page.py"
    program.write_text("\n".join(source for _, source in blocks(page)))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for command in ([program], ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", program]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "asyncio_mode" in page.read_text(encoding="utf-8")
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_names_only_commands_that_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets
