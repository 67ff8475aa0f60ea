"""The command ``init``: a small project with an agent, its crash test and a Makefile."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from durably.cli.command import refuse

__all__ = ["init"]

FILES = {
    "agent.py": "agent.py.txt",
    "test_agent.py": "test_agent.py.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "Makefile": "Makefile.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
}
"""What is written, and which file of ``new_project`` it is made from."""

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""What a Python project may be called (the specification of names and versions of PyPA)."""


def init(
    directory: Annotated[Path, typer.Argument(help="Where to write it; created if it does not exist.")],
) -> None:
    """Create a small project: an agent, a test that crashes it everywhere, a Makefile."""
    name = directory.resolve().name
    if not NAME.fullmatch(name):
        refuse(f"{name!r} is no name for a Python project: use letters, digits, '-', '_' and '.'")
    taken = [each for each in FILES if (directory / each).exists()]
    if taken:
        refuse(f"{directory} has {', '.join(taken)} already: name another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for target, source in FILES.items():
            text = (files("durably.cli") / "new_project" / source).read_text(encoding="utf-8")
            (directory / target).write_text(text.replace("PROJECT_NAME", name), encoding="utf-8")
    except OSError as error:
        refuse(f"{directory}: {error.strerror}")
    typer.echo(f"wrote {', '.join(FILES)} to {directory}")
    typer.echo(f"next: cd {directory} && make test")
