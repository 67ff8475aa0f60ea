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
    """An environment in which this checkout is found, and no key of a model provider."""
    path = os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)
    plain = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return {**plain, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "100"}
