"""The demo: kill the audit agent again and again, and watch it finish anyway.

$ python -m examples.audit.demo --help
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
except ImportError as error:
    raise ImportError("the demo needs an extra: pip install 'durably[cli]'") from error

from durably.core import DurablyError
from durably.core.model import resolve_model
from examples.audit.corpus import Corpus, Root, own_code
from examples.audit.demo.job import Job
from examples.audit.demo.kill_plan import MAX_KILLS, Kill, plan_kills
from examples.audit.demo.last_run import command_for, keep_run
from examples.audit.demo.narration import as_json, conclude
from examples.audit.demo.run import Demo, DemoError, Screen, run_demo
from examples.audit.demo.screen import SilentScreen, screen_for

PACE = 0.25

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


Directory = Annotated[
    Path | None,
    typer.Argument(exists=True, file_okay=False, show_default="this library's own code", help="What to audit."),
]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="PROVIDER:NAME", show_default="scripted", help="A real model; its key is in the environment."),
]
Kills = Annotated[int, typer.Option(min=0, max=MAX_KILLS, help="How often to kill the agent's process.")]
Pace = Annotated[
    float | None,
    typer.Option(min=0, max=5, show_default=f"{PACE} in a terminal", help="Seconds each scripted answer takes."),
]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the journal, the ledger and the report, and say where.")]
AsData = Annotated[bool, typer.Option("--json", help="Print one JSON object, at the end.")]


@app.command()
def demo(
    directory: Directory = None,
    model: ModelName = None,
    kills: Kills = 3,
    pace: Pace = None,
    keep: Keep = False,
    as_data: AsData = False,
) -> None:
    """Kill an agent again and again, and watch it finish anyway.

    An agent audits a directory of source or text. Its process is killed with SIGKILL in a body, between two steps,
    and after an effect but before its commit; each time a fresh process goes on. The directory is only read.

    Exits with 1 if the agent did not finish as if nobody had killed it, with 2 if it could not begin.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names of files may hold what this terminal cannot show
    console = Console(highlight=False)
    if pace is None:
        pace = PACE if console.is_terminal and not as_data else 0.0
    label, corpus = _look_at(directory)
    _check_model(model)
    with _work_folder(keep) as folder, _unwinding_on_signals():
        corpus.copy_to(folder / "files")
        job = Job(
            label=label,
            files=folder / "files",
            left_out=corpus.left_out,
            folder=folder,
            model=model,
            pace=pace if model is None else 0.0,
        )
        plan = plan_kills(kills, scripted=model is None)
        done = _perform(job, corpus, plan, SilentScreen() if as_data else screen_for(console))
        if as_data:
            typer.echo(json.dumps({**as_json(done), "kept": str(folder) if keep else None}, indent=2))
        else:
            conclude(console, done)
            _point_to_page(console, job)
    raise typer.Exit(0 if done.ok else 1)


def _point_to_page(console: Console, job: Job) -> None:
    """Print, as the last line, how to open the run in a browser."""
    try:
        kept = keep_run(job.journal)
    except OSError as error:
        typer.echo(f"the run could not be kept for the page: {error}", err=True)
    else:
        console.print(f" See its run: [bold]{escape(command_for(kept))}[/bold]", soft_wrap=True)


def _look_at(directory: Path | None) -> tuple[str, Corpus]:
    label = "the library's own code" if directory is None else str(directory)
    corpus = Corpus(own_code() if directory is None else [Root(path=directory.resolve())])
    if not corpus.texts:
        found = f"left out: {corpus.missing}" if corpus.missing else "it is empty"
        _refuse(f"there is no text to audit in {label}: {found}", code=2)
    return label, corpus


def _perform(job: Job, corpus: Corpus, kills: Sequence[Kill], screen: Screen) -> Demo:
    try:
        return run_demo(job, corpus, kills, screen)
    except (DemoError, DurablyError) as error:
        _refuse(str(error), code=1)
    except KeyboardInterrupt:
        _refuse("interrupted; the agent's process has been ended", code=130)


def _check_model(model: str | None) -> None:
    try:
        if model is not None:
            resolve_model(model)
    except (DurablyError, ImportError) as error:
        _refuse(str(error), code=2)


def _refuse(message: str, *, code: int) -> NoReturn:
    typer.echo(f"durably demo: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def _work_folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="durably-demo-"))
    try:
        yield folder
    finally:
        if keep:
            typer.echo(f"\n The work files are in {folder}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _unwinding_on_signals() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, so that no child and no file stays behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    app()
