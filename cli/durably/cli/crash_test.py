"""The subcommand ``crash-test``: what it is asked, and how it answers. The crash matrix is ``durably.testing``'s."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from durably.cli.target import TargetError, load_target
from durably.core import DurablyError
from durably.testing import NetworkGuard, NotDeterministicError, Report, crash_matrix
from durably.testing.crash.terminal import print_report, progress_bar

__all__ = ["crash_test"]

BROKEN, USAGE, INTERRUPTED = 1, 2, 130

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:OBJECT", help="An agent, a durable function, or a function that makes one with its world."
    ),
]
Input = Annotated[str, typer.Option("--input", metavar="JSON", help="Its input; a text needs its quotes.")]
BackendName = Annotated[
    str | None,
    typer.Option(metavar="memory|sqlite", show_default="memory, or sqlite for sigkill", help="The engine it runs on."),
]
Mode = Annotated[
    Literal["inproc", "sigkill"],
    typer.Option(help="How to crash: unwind the event loop's tasks, or kill a process with SIGKILL."),
]
Crashes = Annotated[int, typer.Option(min=1, help="How many crashes to put into one run at most.")]
Points = Annotated[
    list[str] | None,
    typer.Option("--points", metavar="GLOB", show_default="all", help="Only these, such as 'tool-*/after_effect'."),
]
Repro = Annotated[str | None, typer.Option(metavar="LABEL", help="Run one cell again; a failure prints its label.")]
Html = Annotated[
    Path | None, typer.Option(metavar="FILE", dir_okay=False, writable=True, help="Write the picture to a file.")
]
AsData = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")]


def crash_test(
    target: Target,
    input: Input = "null",
    backend: BackendName = None,
    mode: Mode = "inproc",
    crashes: Crashes = 1,
    points: Points = None,
    repro: Repro = None,
    html: Html = None,
    as_data: AsData = False,
) -> None:
    """Crash an agent at every point, and check that it recovers.

    It runs the agent without a crash, then once for each point at which a process can die. Each time it restarts the
    agent and checks the records and effects against the laws. The model must answer from a script: the network is
    blocked.

    Exits with 0 if every law held, with 1 if one was broken, with 2 if the test could not run.
    """
    logging.getLogger("durably").addHandler(logging.NullHandler())  # what fails, and where, stands in the report
    if html is not None and not html.absolute().parent.is_dir():
        _refuse(f"--html {html}: there is no folder {html.absolute().parent}")
    arguments: dict[str, Any] = {"backend": backend, "mode": mode, "crashes": crashes, "repro": repro}
    report = _run(_load(target), _read(input), {**arguments, "points": points or "*"})
    report.reproduce = _command(target, input, backend, mode)
    if html is not None:
        report.to_html(html)
    if as_data:
        typer.echo(report.to_json())
    else:
        print_report(report)
    raise typer.Exit(0 if report.ok else BROKEN)


def _load(name: str) -> Any:
    try:
        return load_target(name)
    except TargetError as error:
        _refuse(str(error))


def _read(input: str) -> Any:
    try:
        return json.loads(input)
    except ValueError as error:
        _refuse(f"--input is not JSON: {error}. A text is written with its quotes: --input '\"Where is order 7?\"'")


def _run(target: Any, data: Any, arguments: dict[str, Any]) -> Report:
    with NetworkGuard() as network, _progress() as progress:
        try:
            report = asyncio.run(crash_matrix(target, data, progress=progress, **arguments))
        except NotDeterministicError as error:
            _check_network(network)  # what was refused may be what differed
            _refuse(str(error), code=BROKEN)
        except (DurablyError, ValueError) as error:
            _check_network(network)
            _refuse(str(error))
        except KeyboardInterrupt:
            _refuse("interrupted", code=INTERRUPTED)
        except Exception as error:
            traceback.print_exc()
            _refuse(f"the test could not be made: {type(error).__name__}: {error}")
    _check_network(network)
    return report


def _check_network(network: NetworkGuard) -> None:
    """Refuse a test that tried to reach another machine, also where the agent swallowed the error."""
    if network.refused:
        address = network.refused[0].address
        _refuse(
            f"the agent tried to reach {address}. Its model and its tools must be scripted here: give it "
            "model=ScriptedModel(...), or point its client at an LLMServer; a fake may listen on localhost"
        )


@contextmanager
def _progress() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield None
        return
    with progress_bar() as bar:
        yield bar


def _command(target: str, input: str, backend: str | None, mode: str) -> str:
    """The command that runs one cell again, with a place for its label."""
    words = ["durably", "crash-test", target]
    words += [] if input == "null" else ["--input", input]
    words += [] if backend is None else ["--backend", backend]
    words += [] if mode == "inproc" else ["--mode", mode]
    return shlex.join(words).replace("{", "{{").replace("}", "}}") + " --repro {label!r}"


def _refuse(message: str, *, code: int = USAGE) -> NoReturn:
    typer.echo(f"durably crash-test: {message}", err=True)
    raise typer.Exit(code)
