"""The command as a user calls it, in a folder with a program of theirs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.program import make_runs

COMMAND = [sys.executable, "-c", "import sys; from durably.cli.main import app; sys.argv[0] = 'durably'; app()"]

OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
"""What a make that runs the tests tells a make below it, which then names its folder and its level."""

Durably = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def durably(tmp_path: Path) -> Durably:
    """Calls the command in the test's folder and waits for its end."""

    def call(*args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, args)]
        env = command_environment()
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=50, check=False)

    return call


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with the runs of ``tests.cli.program``, in the test's folder."""
    path = tmp_path / "runs.db"
    asyncio.run(make_runs(path))
    return path


def command_environment() -> dict[str, str]:
    """An environment in which this checkout is found, without keys of model providers or words of a make around it."""
    path = os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    for name in OF_MAKE:
        env.pop(name, None)
    return {**env, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "100"}
