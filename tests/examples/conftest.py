"""A directory to audit, and the demo as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "examples.audit.demo"]

SOURCE = '''"""A module."""

import os  # noqa


def documented(x):
    """It says what it does."""
    return x


async def bare(x):
    try:
        return os.fspath(x)  # type: ignore
    except Exception:
        # TODO: say what went wrong
        return None


def _private():
    def inner():
        return 1

    return inner


class Thing:
    def method(self):
        return "FIXME: one line with TODO twice TODO"
'''


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small directory with everything in it that can be in the way."""
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "module.py").write_text(SOURCE)
    (folder / "deep" / "broken.py").write_text("def (:\n")
    (folder / "deep" / "er" / "notes.md").write_text("# Notes\n\nno newline at the end: é")
    (folder / "deep" / "empty.txt").write_text("")
    (folder / "deep" / "picture.bin").write_bytes(b"\x89PNG\0\xff")
    (folder / ".hidden" / "secret.txt").write_text("TODO")
    (folder / "link.py").symlink_to(folder / "module.py")
    os.mkfifo(folder / "pipe")
    return folder


RunDemo = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def demo(tmp_path: Path) -> RunDemo:
    """Runs the demo and waits for its end."""

    def call(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        env = command_environment(tmp_path, **environment)
        return subprocess.run(
            [*COMMAND, *map(str, args)], capture_output=True, text=True, env=env, timeout=50, check=False
        )

    return call


def command_environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which this checkout is found, and the demo's work files are kept apart."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    path = os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)
    plain = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    own = {"PYTHONPATH": path, "TMPDIR": str(work), "XDG_CACHE_HOME": str(folder / "cache")}
    return {**plain, **own, "TERM": "xterm", "COLUMNS": "100", **more}


def as_data(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What ``--json`` printed."""
    assert done.returncode in (0, 1), done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data
