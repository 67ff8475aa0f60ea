"""The commands that look at runs: ``runs``, ``show`` and ``export``."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from durably.cli.address import open_client
from durably.cli.command import AsJSON, BackendName, RunName, console, find_run, print_json, refuse, run_command
from durably.cli.find_runs import find_runs
from durably.cli.run_tree import STATUS_STYLES, step_view, trace_view
from durably.cli.text import clock_time, one_line, plain, seconds
from durably.core import Backend, Run, RunStatus

__all__ = ["export", "runs", "show"]

FunctionFilter = Annotated[str | None, typer.Option("--function", metavar="ID", help="Only runs of this function.")]
StatusFilter = Annotated[RunStatus | None, typer.Option("--status", help="Only runs that stand there.")]
TextFilter = Annotated[str, typer.Option("--text", metavar="TEXT", help="Only runs with this in their ids.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs to show at most.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Look again every second, until interrupted.")]
StepKey = Annotated[str | None, typer.Option("--step", metavar="KEY", help="One step, whole.")]
Form = Annotated[
    Literal["history", "trace"], typer.Option("--as", help="Its records as JSON Lines, or its trace as JSON.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="A file; left out, the terminal.")]


def runs(
    backend: BackendName,
    function: FunctionFilter = None,
    status: StatusFilter = None,
    text: TextFilter = "",
    limit: Limit = 20,
    watch: Watch = False,
    as_json: AsJSON = False,
) -> None:
    """List the newest runs."""

    async def main() -> None:
        async with open_client(backend) as engine:
            if watch and not as_json:
                await _watch(engine, function=function, status=status, text=text, limit=limit)
                return
            found = await find_runs(engine, function=function, status=status, text=text, limit=limit)
            if as_json:
                print_json({"runs": [run_data(run) for run in found]})
            else:
                console().print(_table(found) if found else "no runs")

    run_command(main())


async def _watch(engine: Backend, **filters: Any) -> None:
    with Live(console=console(), auto_refresh=False, screen=console().is_terminal) as live:
        while True:
            live.update(_table(await find_runs(engine, **filters)), refresh=True)
            await asyncio.sleep(1)


def run_data(run: Run[Any]) -> dict[str, Any]:
    """What is known of a run, as JSON data."""
    return asdict(run.view)


def _table(found: Any) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name, width in (("run", 12), ("function", 8), ("status", 9), ("started", 19), ("took", 8)):
        table.add_column(name, no_wrap=True, min_width=width, justify="right" if name == "took" else "left")
    table.add_column("", no_wrap=True)
    for run in found:
        view = run.view
        ended = view.ended_at or (time.time() if not view.status.final else view.created_at)
        said = "" if view.error is None else f"{view.error.get('type')}: {view.error.get('message', '')}"
        table.add_row(
            plain(view.id),
            plain(view.function),
            Text(view.status.value, style=STATUS_STYLES[view.status.value]),
            clock_time(view.created_at),
            seconds(max(0.0, ended - view.created_at)),
            Text(one_line(said, 60), style="red"),
        )
    return table


def show(run: RunName, backend: BackendName, step: StepKey = None, as_json: AsJSON = False) -> None:
    """Show a run: the tree of its steps, with times, attempts, tokens and cost."""

    async def main() -> None:
        async with open_client(backend) as engine:
            found = await find_run(engine, run)
            trace = await found.trace(limit=None if step or as_json else 500)
            if step is None:
                if as_json:
                    typer.echo(trace.to_json())
                else:
                    console().print(trace_view(trace, time.time()))
                return
            try:
                one = trace.step(step)
            except LookupError:
                refuse(f"run {found.id} has no step {step!r}; its steps: {', '.join(s.key for s in trace.walk())}")
            if as_json:
                typer.echo(one.model_dump_json())
            else:
                console().print(step_view(one))

    run_command(main())


def export(run: RunName, backend: BackendName, form: Form = "history", output: Output = None) -> None:
    """Write down a run: its records, which `durably replay` and tests read, or its trace."""

    async def main() -> str:
        async with open_client(backend) as engine:
            found = await find_run(engine, run)
            if form == "trace":
                return (await found.trace(limit=None)).to_json() + "\n"
            return (await found.history()).to_jsonl()

    text = run_command(main())
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        refuse(f"--output {output}: {error.strerror}")
