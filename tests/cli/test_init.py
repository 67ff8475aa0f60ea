"""`durably init` writes a project that runs and passes, and breaks nothing that is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Durably, command_environment

FILES = {".gitignore", "Makefile", "README.md", "agent.py", "pyproject.toml", "test_agent.py"}


def make(project: Path, *targets: str) -> str:
    command = ["make", f"PYTHON={sys.executable}", *targets]
    env = {**command_environment(), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_project_is_tested_killed_and_goes_on(durably: Durably, tmp_path: Path) -> None:
    done = durably("init", "my-shop")
    assert done.stdout.splitlines()[-1] == "next: cd my-shop && make test"
    project = tmp_path / "my-shop"
    assert {each.name for each in project.iterdir()} == FILES
    assert 'name = "my-shop"' in (project / "pyproject.toml").read_text()
    assert "1 passed" in make(project, "test")
    assert "tool-refund" in (project / "crash-matrix.html").read_text()
    assert "payments" not in make(project, "crash")
    assert (project / "payments.jsonl").read_text().count("\n") == 1, "it was killed after it had paid"
    assert make(project, "run").splitlines()[-2:] == ["Your money is on its way.", "payments: 1"]
    make(project, "clean")
    assert not list(project.glob("runs.db*"))


def test_the_test_of_the_project_fails_without_the_key(durably: Durably, tmp_path: Path) -> None:
    durably("init", "shop")
    agent = tmp_path / "shop" / "agent.py"
    keyed = "key=current_step().idempotency_key"
    assert keyed in agent.read_text()
    agent.write_text(agent.read_text().replace(keyed, "key=os.urandom(8).hex()"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    env = command_environment()
    done = subprocess.run(command, cwd=agent.parent, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert "tool-refund/after_effect" in done.stdout


def test_nothing_is_overwritten(durably: Durably, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "agent.py").write_text("mine")
    refused = durably("init", "shop")
    assert refused.returncode == 2
    assert "agent.py" in refused.stderr
    assert [each.name for each in (tmp_path / "shop").iterdir()] == ["agent.py"]


def test_a_name_that_is_none_is_refused(durably: Durably, tmp_path: Path) -> None:
    refused = durably("init", "a b")
    assert refused.returncode == 2
    assert "letters" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_do_next(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('as if it were not there')")
    env = command_environment()
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    code = "from durably.cli.main import app"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[1:] == ["  pip install 'durably[cli,testing]'", "  durably init my-agent"]
