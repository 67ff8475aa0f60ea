"""The shape of the project: one namespace, imports that go one way, a core that waits for its first name."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("core", "backends", "providers", "telemetry", "testing", "cli")
MAY_IMPORT = {
    "core": {"core"},
    "backends": {"core", "backends"},
    "providers": {"core", "mcp", "providers"},
    "telemetry": {"core", "telemetry"},
    "testing": {"core", "backends", "testing"},
    "cli": {*PARTS, "ui"},
}
SOURCES = sorted(path for part in PARTS for path in (ROOT / part / "durably").rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
FOR_USERS = {
    "durably",
    "durably.backends",
    "durably.core",
    "durably.core.errors",
    "durably.core.history",
    "durably.core.messages",
    "durably.core.model",
    "durably.core.observer",
    "durably.core.steps",
    "durably.mcp",
    "durably.telemetry",
    "durably.telemetry.id_generator",
    "durably.testing",
    "durably.testing.laws",
    "durably.testing.snapshot",
}
"""What a program outside the library may import; the examples are such programs."""

FOR_STORAGES = {f"durably.backends.replay.{each}" for each in ("backend", "clock", "journal")}
"""What a storage for the replay engine is built on, by the page on conformance."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which part they reach into"
            yield node.module or ""


def module_of(path: Path) -> str:
    part = ROOT if path.is_relative_to(ROOT / "examples") else ROOT / path.relative_to(ROOT).parts[0]
    return ".".join(path.relative_to(part).with_suffix("").parts).removesuffix(".__init__")


def test_the_namespace_has_no_init() -> None:
    assert [part for part in PARTS if (ROOT / part / "durably" / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    reached = {module.split(".")[1] for module in imports(tree) if module.startswith("durably.")}
    assert reached <= MAY_IMPORT[part]
    if part == "core":
        foreign = {module.split(".")[0] for module in imports(tree)} - set(sys.stdlib_module_names)
        assert foreign <= {"durably", "pydantic", "pydantic_core", "typing_extensions"}
    assert "TYPE_CHECKING" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_examples_use_what_users_may_use(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert {module for module in imports(tree) if module.split(".")[0] == "durably"} <= FOR_USERS | FOR_STORAGES
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("durably."):
            public = importlib.import_module(node.module or "")
            modules = {each.rpartition(".")[2] for each in FOR_USERS if each.startswith(f"{node.module}.")}
            assert {alias.name for alias in node.names} <= {*public.__all__, *modules}


@pytest.mark.parametrize("name", ["agent", "corpus", "measure", "report", "scripted"])
def test_the_audit_agent_stands_on_the_core_alone(name: str) -> None:
    tree = ast.parse((ROOT / "examples" / "audit" / f"{name}.py").read_text())
    reached = {module for module in imports(tree) if module.startswith(("durably.", "examples."))}
    others = {f"examples.audit.{each}" for each in ("agent", "corpus", "measure", "report")}
    assert {module for module in reached if module.split(".")[1] != "core"} <= others


def test_no_import_cycles() -> None:
    modules = {module_of(path): path for path in [*SOURCES, *EXAMPLES]}
    graph = {
        module: {target for target in imports(ast.parse(path.read_text())) if target in modules and target != module}
        for module, path in modules.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_module_of_the_core_hides_a_public_name() -> None:
    # Importing a module puts it into its package, in the place of a name that has not been asked for yet.
    loaded = importlib.import_module("durably.core")
    modules = {path.stem for path in (ROOT / "core/durably/core").glob("*.py")}
    assert modules & set(loaded.__all__) == set()


def test_the_core_waits_for_its_first_name() -> None:
    code = "import sys, durably.core; print('pydantic' in sys.modules); durably.core.Agent; durably.core.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n"
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'durably.core' has no attribute 'nothing'"


@pytest.mark.parametrize("module", ["durably.core", "durably.backends", "durably.testing"])
def test_what_needs_no_extra_imports_none(module: str) -> None:
    models, engines = ["anthropic", "openai", "litellm", "mcp"], ["temporalio", "inngest"]
    extras = [*models, *engines, "opentelemetry", "rich", "typer", "pytest", "hypothesis"]
    code = f"import sys, {module}; print([m for m in {extras} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
