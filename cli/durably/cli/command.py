"""What every command shares: its options, how it is run, how it answers, and how it refuses.

Exit codes: 0, done; 1, what was asked about does not hold; 2, the command could not be carried out; 130, interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from durably.cli.target import SHOW_WHERE, TargetError
from durably.core import Backend, DurablyError, Run, RunNotFoundError

__all__ = [
    "INTERRUPTED",
    "NO",
    "REFUSED",
    "AsJSON",
    "BackendName",
    "RunName",
    "console",
    "find_run",
    "print_json",
    "read_json",
    "refuse",
    "run_command",
]

T = TypeVar("T")

PIPED_WIDTH = 200
"""Characters a line may have where no terminal cuts it."""

NO, REFUSED, INTERRUPTED = 1, 2, 130

BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        envvar="DURABLY_BACKEND",
        metavar="URL|MODULE:OBJECT",
        help="sqlite:///runs.db, temporal://host:port/namespace?task_queue=q, inngest://host:port/app, or app:backend.",
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run, or a unique prefix of it.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def console(*, stderr: bool = False) -> Console:
    """Where a command prints: as wide as the terminal, or wide enough for whatever else reads it."""
    found = Console(highlight=False, stderr=stderr)
    return found if found.is_terminal else Console(highlight=False, stderr=stderr, width=PIPED_WIDTH)


def run_command(main: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end. What goes wrong is said in one line on stderr, and ends it with exit code 2.

    With ``DURABLY_TRACEBACK=1`` in the environment an error keeps its traceback.
    """
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        refuse("interrupted", code=INTERRUPTED)
    except typer.Exit:
        raise
    except Exception as error:
        if os.environ.get("DURABLY_TRACEBACK") == "1":
            raise
        refuse(said(error))


def said(error: Exception) -> str:
    """An error in one line; those of ours say by themselves what to do."""
    if isinstance(error, DurablyError | TargetError | ValueError):
        return str(error)
    return f"{type(error).__name__}: {error} ({SHOW_WHERE})"


def refuse(message: str, *, code: int = REFUSED) -> NoReturn:
    """Say on stderr why the command ends here, and end it."""
    typer.echo(f"durably: {message}", err=True)
    raise typer.Exit(code)


def print_json(data: Any) -> None:
    """Print JSON on one line."""
    typer.echo(json.dumps(data, ensure_ascii=False))


def read_json(text: str, option: str) -> Any:
    """The JSON that a user gave; ``@FILE`` stands for the text of a file."""
    try:
        if text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:
                text = file.read()
        return json.loads(text)
    except OSError as error:
        refuse(f"{option} {text}: {error.strerror}")
    except ValueError as error:
        refuse(f"{option} is not JSON: {error}. A text is written with its quotes: {option} '\"Where is order 7?\"'")


async def find_run(backend: Backend, name: str) -> Run[Any]:
    """The run of an id, or of the beginning of one.

    Raises:
        DurablyError: If there is none, or more than one.
    """
    try:
        return await backend.run(name)
    except RunNotFoundError as error:
        raise DurablyError(f"{error}; 'durably runs' lists them") from None
