"""The commands about machines: ``worker`` runs functions, ``workers`` lists who does, ``prune`` forgets old runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from durably.cli.address import load_backend, open_client
from durably.cli.command import AsJSON, BackendName, console, print_json, refuse, run_command
from durably.cli.text import clock_time, plain
from durably.core import run_worker

__all__ = ["prune", "worker", "workers"]

Target = Annotated[
    str, typer.Argument(metavar="MODULE:OBJECT", help="A backend with functions, or a function that makes one.")
]
Drain = Annotated[
    str | None, typer.Option("--drain", metavar="DURATION", help="How long to wait for bodies after the signal: '30s'.")
]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="DURATION", help="Delete runs that ended longer ago than this: '30d'."),
]
Keep = Annotated[
    int | None, typer.Option("--keep", min=0, help="How many of the newest runs of each function to keep.")
]


def worker(target: Target, drain: Drain = None) -> None:
    """Run the functions of a program, in new and unfinished runs, until SIGTERM or Ctrl-C.

    It then takes no new run and waits for running bodies. A second signal ends it at once.
    """
    if ":" not in target or "://" in target:
        refuse(f"{target!r} names no program: a worker needs its functions, such as app:backend")

    async def main() -> None:
        backend = await load_backend(target)
        if not backend.functions:
            refuse(f"{target} has no functions: give the backend functions=[...]")
        typer.echo(plain(f"serving {', '.join(backend.functions)} on {backend.name} (Ctrl-C ends it)"))
        await run_worker(backend, drain_timeout=drain)

    run_command(main())


def workers(backend: BackendName, as_json: AsJSON = False) -> None:
    """List the live workers."""

    async def main() -> Any:
        async with open_client(backend) as engine:
            return await engine.workers()

    found = run_command(main())
    if as_json:
        print_json({"workers": [asdict(each) for each in found]})
        return
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("worker", "host", "pid", "runs", "alive until", "functions"):
        table.add_column(name, justify="right" if name in ("pid", "runs") else "left")
    for each in found:
        runs = "" if each.runs is None else str(each.runs)
        functions = ", ".join(each.functions or ())
        alive = clock_time(each.lease_until)
        table.add_row(plain(each.name or each.id), plain(each.host), str(each.pid or ""), runs, alive, plain(functions))
    console().print(table if found else "no worker is up")


def prune(backend: BackendName, older_than: OlderThan = None, keep: Keep = None, as_json: AsJSON = False) -> None:
    """Delete finished runs with their records. Workers do so by themselves, by the retention of their functions."""
    if older_than is None and keep is None:
        refuse("say what is to go: --older-than 30d, --keep 100, or both")

    async def main() -> Any:
        async with open_client(backend) as engine:
            return await engine.prune(older_than=older_than, keep=keep)

    gone = run_command(main())
    if as_json:
        print_json(asdict(gone))
    else:
        typer.echo(f"{gone.runs} runs, {gone.records} records and {gone.events} events are gone")
