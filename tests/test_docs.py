"""Every Python block in the README and the docs runs as a reader would paste it.

The blocks of a page, top to bottom, are one program. It is compiled as a file is, so nothing awaits at the top level. A
function `test_...()` that a block defines is called after it. A block with a `title` is a file beside the program.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python(?: title=\"(.*?)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"""(?:\]\(|src=")([^)"#\s]+)(?:#[^)"]*)?[)"]""")


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A page may set up logging; the tests after it have theirs back."""
    log = logging.getLogger("durably")
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


def blocks(page: Path) -> list[tuple[int, str]]:
    """Each block and the line it starts on."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start()) + 2, match[2]) for match in BLOCK.finditer(text)]


def program(page: Path) -> list[tuple[int, str]]:
    """The blocks that are no files of their own: what a reader pastes into one."""
    return [(line, source) for line, source in blocks(page) if source not in files_of(page).values()]


def files_of(page: Path) -> dict[str, str]:
    """The blocks that are files of their own, by the names that the page gives them."""
    return {match[1]: match[2] for match in BLOCK.finditer(page.read_text(encoding="utf-8")) if match[1]}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT)).removeprefix("docs/")


ELSEWHERE = {page for page in PAGES if page.parent.name == "docs" and page.name.startswith("temporal")}
"""They have a server in tests/temporal."""
ELSEWHERE.add(ROOT / "docs" / "tutorial.md")  # it is about files that `durably init` writes: tests/test_tutorial.py
HERE = [page for page in PAGES if blocks(page) and page not in ELSEWHERE]
FIRST_PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
"""What a reader may paste into a notebook before anything else."""


@pytest.mark.parametrize("page", HERE, ids=page_id)
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, monkeypatch)


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch, **substitutions: str) -> None:
    """Run a page's blocks in one module, with some words replaced."""
    module = types.ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name, source in files_of(page).items():
        Path(name).write_text(source)
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    monkeypatch.syspath_prepend(Path.cwd())
    for line, source in program(page):
        for word, other in substitutions.items():
            source = source.replace(word, other)
        exec(compile("\n" * (line - 1) + source, str(page), "exec", dont_inherit=True), vars(module))
        run_tests(vars(module), source)


def run_tests(names: dict[str, Any], source: str) -> None:
    for name in re.findall(r"^(?:async )?def (test_\w+)\(\)", source, re.MULTILINE):
        outcome = names[name]()
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)


@pytest.mark.parametrize("page", [page for page in HERE if files_of(page)], ids=page_id)
def test_every_file_is_used_by_the_program(page: Path) -> None:
    sources = [source for _, source in blocks(page)]
    imported = {name for name in files_of(page) if any(f"from {Path(name).stem} import" in each for each in sources)}
    assert set(files_of(page)) - imported <= {"main.py"}, "main.py has a test of its own"


class InNotebook(ast.NodeTransformer):
    """Writes `await x` for `asyncio.run(x)`, as the pages tell readers in a notebook to do."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return ast.Await(node.args[0]) if ast.unparse(node.func) == "asyncio.run" else node


@pytest.mark.parametrize("page", FIRST_PAGES, ids=page_id)
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


@pytest.mark.parametrize("page", FIRST_PAGES, ids=page_id)
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


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    made = ROOT / "docs" / "reference"  # when the site is built, which also checks links to it
    paths = [(page.parent / target).resolve() for target in targets]
    assert [path for path in paths if not path.exists() and not path.is_relative_to(made)] == []


def test_the_readme_names_only_commands_that_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets
