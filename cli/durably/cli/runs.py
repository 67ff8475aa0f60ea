"""The commands that look at runs: ``runs``, ``show`` and ``export``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.live import Live
from rich.text import Text

from durably.cli.address import open_client
from durably.cli.command import AsJSON, BackendName, RunName, console, find_run, print_json, refuse, run_command
from durably.cli.exported_tests import write_test
from durably.cli.run_counts import RunCounts, count_runs
from durably.cli.run_options import (
    After,
    Before,
    FunctionFilter,
    Parent,
    Root,
    Session,
    Since,
    StatusFilter,
    Tags,
    TextFilter,
    Until,
    asked_filters,
)
from durably.cli.run_table import runs_view
from durably.cli.run_tree import step_view, trace_view
from durably.cli.waits import spell_wait
from durably.core import Run
from durably.core.run_filter import RunPage

__all__ = ["export", "runs", "show"]

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs to show at most.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second, until interrupted.")]
StepKey = Annotated[str | None, typer.Option("--step", metavar="KEY", help="Show one step in full.")]
Form = Annotated[
    Literal["history", "trace"], typer.Option("--as", help="Its records as JSON Lines, or its trace as JSON.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="A file. Default: the terminal.")]


AsTest = Annotated[
    bool, typer.Option("--as-test", help="A pytest file: its records as a golden history, its answers, a crash matrix.")
]
TestTarget = Annotated[
    str | None,
    typer.Option("--target", metavar="MODULE:OBJECT", help="The function of the run, which the test imports."),
]


def runs(
    backend: BackendName,
    function: FunctionFilter = None,
    status: StatusFilter = None,
    tag: Tags = None,
    session: Session = None,
    parent: Parent = None,
    root: Root = None,
    since: Since = None,
    until: Until = None,
    text: TextFilter = "",
    after: After = None,
    before: Before = None,
    limit: Limit = 20,
    watch: Watch = False,
    as_json: AsJSON = False,
) -> None:
    """List and count the runs that match all options, the newest first."""

    async def main() -> None:
        filters = asked_filters(
            function=function,
            status=status,
            tags=tag,
            session=session,
            parent=parent,
            root=root,
            since=since,
            until=until,
            text=text,
        )
        async with open_client(backend) as engine:

            async def look() -> tuple[RunPage[Run[Any]], RunCounts]:
                page = await engine.runs(**filters, after=after, before=before, limit=limit)
                return page, await count_runs(engine, filters)

            if watch and not as_json:
                await _watch(look)
            page, counts = await look()
            if as_json:
                print_json(_page_data(page, counts))
            else:
                console().print(runs_view(page, counts, time.time()))

    run_command(main())


async def _watch(look: Callable[[], Awaitable[tuple[RunPage[Run[Any]], RunCounts]]]) -> NoReturn:
    with Live(console=console(), auto_refresh=False, screen=console().is_terminal) as live:
        while True:
            live.update(runs_view(*await look(), time.time()), refresh=True)
            await asyncio.sleep(1)


def _page_data(page: RunPage[Run[Any]], counts: RunCounts) -> dict[str, Any]:
    found = [run_data(run) for run in page]
    counted = {"counts": dict(counts.numbers), "counts_partial": counts.partial}
    return {"runs": found, **counted, "next": page.next, "previous": page.previous}


def run_data(run: Run[Any]) -> dict[str, Any]:
    """What is known of a run, as JSON data."""
    return asdict(run.view)


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
                    now = time.time()
                    console().print(trace_view(trace, now, found.status.value))
                    for wait in found.view.waiting_for:
                        console().print(Text(f"waits for {spell_wait(wait, now)}", style="yellow"))
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


def export(
    run: RunName,
    backend: BackendName,
    form: Form = "history",
    as_test: AsTest = False,
    target: TestTarget = None,
    output: Output = None,
) -> None:
    """Export a run: its records, which `durably replay` and tests read, its trace, or a test of it."""
    if as_test:
        write_test(run, backend, target, output)
        return

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
