"""The commands that take recorded runs through the code of now: ``replay`` one file, ``check`` a whole engine."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from durably.cli.address import open_client
from durably.cli.command import NO, AsJSON, BackendName, console, print_json, refuse, run_command, said
from durably.cli.target import load_functions
from durably.cli.text import plain
from durably.core import Function, SerializationError
from durably.core.history import History
from durably.testing import DeployReport, check_deploy
from durably.testing.deploy_check import fit_run

__all__ = ["check", "replay"]

Target = Annotated[
    str, typer.Argument(metavar="MODULE:OBJECT", help="An agent, a function, a list of them, or a backend with them.")
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The records of a run: what 'durably export' wrote.")]


def replay(file: File, target: Target, as_json: AsJSON = False) -> None:
    """Replay a recorded run with the current code, and name the first step that does not fit. No body runs.

    Exits with 0 if all of it fits, with 1 if a step does not.
    """
    functions = _functions(target)
    try:
        history = History.load(file)
    except OSError as error:
        refuse(f"{file}: {error.strerror}")
    except SerializationError as error:
        refuse(f"{file}: {error}")
    _answer(DeployReport((run_command(fit_run(history, functions)),)), as_json)


def check(target: Target, backend: BackendName, as_json: AsJSON = False) -> None:
    """Replay every live run of an engine with the current code, before a deploy. No body runs and no run changes.

    Exits with 0 if every run fits this code. Otherwise it names the step and the line, and exits with 1.
    """
    functions = _functions(target)

    async def main() -> DeployReport:
        async with open_client(backend) as engine:
            with Progress(console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
                task = progress.add_task("replaying live runs", total=None)
                return await check_deploy(functions, engine, progress=lambda: progress.advance(task))

    _answer(run_command(main()), as_json)


def _functions(target: str) -> list[Function[Any, Any]]:
    try:
        return load_functions(target)
    except Exception as error:
        refuse(said(error))


def _answer(report: DeployReport, as_json: bool) -> None:
    if as_json:
        print_json({"ok": report.ok, "runs": [asdict(each) for each in report.runs]})
    else:
        for line in str(report).splitlines():
            typer.echo(plain(line))
    raise typer.Exit(0 if report.ok else NO)
