"""The tutorial, command by command, as a reader types it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import command_environment

PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ALREADY_DONE = ("python3 -m venv", ". .venv/bin/activate", "pip install")
"""The environment is that of the tests."""


def commands() -> list[tuple[str, list[str]]]:
    """Each command with the lines that the page shows below it."""
    found: list[tuple[str, list[str]]] = []
    for block in CONSOLE.findall(PAGE):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


@pytest.mark.timeout(180)
def test_every_command_does_what_is_printed(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    durably = "import sys; from durably.cli.main import app; sys.argv[0] = 'durably'; app()"
    (tools / "durably").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{durably}" "$@"\n')
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = command_environment()
    env |= {"PATH": f"{tools}{os.pathsep}{env['PATH']}", "PYTEST_ADDOPTS": "-p no:cacheprovider", "LC_ALL": "C"}
    place, ran = tmp_path, 0
    for command, shown in commands():
        if command.startswith(ALREADY_DONE):
            continue
        if command.startswith("cd "):
            place = place / command[3:]
            continue
        done = subprocess.run(["sh", "-c", command], cwd=place, env=env, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\n{said}"
        assert [line for line in shown if line != "..." and line not in said] == [], f"{command}\n{said}"
        ran += 1
    assert ran >= 10


def test_the_test_on_the_page_is_the_one_of_the_project() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    project = Path(__file__).parent.parent / "cli" / "durably" / "cli" / "new_project" / "test_agent.py.txt"
    assert block in project.read_text(encoding="utf-8")
