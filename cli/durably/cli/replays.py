"""The commands that take recorded runs through the code of now: ``replay`` one file, ``check`` a whole engine."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from durably.cli.address import open_client
from durably.cli.command import NO, AsJSON, BackendName, console, print_json, refuse, run_command, said
from durably.cli.target import load_functions
from durably.cli.text import plain
from durably.core import Backend, DefinitionError, Function, NonDeterminismError, Run, SerializationError
from durably.core.history import History
from durably.core.run_view import LIVE
from durably.testing import replay as replay_history

__all__ = ["check", "replay"]

Target = Annotated[
    str, typer.Argument(metavar="MODULE:OBJECT", help="An agent, a function, a list of them, or a backend with them.")
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The records of a run: what 'durably export' wrote.")]


def replay(file: File, target: Target, as_json: AsJSON = False) -> None:
    """Take the code of now through a recorded run. No body runs; the first step that does not fit is named.

    Exits with 0 if all of it fits, with 1 if a step does not.
    """
    functions = _functions(target)
    try:
        history = History.load(file)
    except OSError as error:
        refuse(f"{file}: {error.strerror}")
    except SerializationError as error:
        refuse(f"{file}: {error}")
    _answer([run_command(_verdict(history, functions))], as_json)


def check(target: Target, backend: BackendName, as_json: AsJSON = False) -> None:
    """Take the code of now through every live run of an engine, before a deployment. Nothing is run or changed.

    Exits with 0 if every run can go on with this code, with 1 if one cannot; its step is named.
    """
    functions = _functions(target)

    async def main() -> list[Verdict]:
        async with open_client(backend) as engine:
            with Progress(console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
                task = progress.add_task("replaying live runs", total=None)
                verdicts = []
                async for run in _live_runs(engine):
                    verdicts.append(await _verdict(await run.history(), functions))
                    progress.advance(task)
                return verdicts

    _answer(run_command(main()), as_json)


@dataclass(frozen=True)
class Verdict:
    """What the code of now makes of one run.

    Attributes:
        run_id: The run.
        function: The id of its function.
        fits: Whether its records fit the code.
        step: The key of the step that does not fit; empty for the function's own end.
        problem: What is wrong, in words.
    """

    run_id: str
    function: str
    fits: bool
    step: str = ""
    problem: str = ""


async def _verdict(history: History, functions: Sequence[Function[Any, Any]]) -> Verdict:
    try:
        await replay_history(history, functions)
    except NonDeterminismError as error:
        return Verdict(history.run_id, history.function, False, error.step, str(error))
    except (DefinitionError, SerializationError) as error:
        return Verdict(history.run_id, history.function, False, "", str(error))
    return Verdict(history.run_id, history.function, True)


async def _live_runs(engine: Backend) -> AsyncIterator[Run[Any]]:
    for run in await engine.runs(status=LIVE, limit=1_000_000):
        yield run


def _functions(target: str) -> list[Function[Any, Any]]:
    try:
        return load_functions(target)
    except Exception as error:
        refuse(said(error))


def _answer(verdicts: Sequence[Verdict], as_json: bool) -> None:
    bad = [each for each in verdicts if not each.fits]
    if as_json:
        print_json({"ok": not bad, "runs": [asdict(each) for each in verdicts]})
    else:
        for each in bad:
            where = f" at step {each.step!r}" if each.step else ""
            typer.echo(plain(f"✗ {each.run_id} ({each.function}) does not fit{where}: {each.problem}"))
        typer.echo(f"{len(verdicts) - len(bad)} of {len(verdicts)} runs fit the code")
    raise typer.Exit(NO if bad else 0)
