"""The command ``worker``: runs the functions of a program until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer

from durably.cli.address import load_backend
from durably.cli.command import refuse, run_command
from durably.cli.text import plain

__all__ = ["worker"]

Target = Annotated[
    str, typer.Argument(metavar="MODULE:OBJECT", help="A backend with functions, or a function that makes one.")
]


def worker(target: Target) -> None:
    """Run the functions of a program: new runs, and those that are unfinished. SIGTERM and Ctrl-C end it.

    It stops at the next step of each run, and gives the runs back for another worker to go on with.
    """
    if ":" not in target or "://" in target:
        refuse(f"{target!r} names no program: a worker needs its functions, such as app:backend")

    async def main() -> None:
        backend = await load_backend(target)
        if not backend.functions:
            refuse(f"{target} has no functions: give the backend functions=[...]")
        stop = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        async with backend:
            typer.echo(plain(f"serving {', '.join(backend.functions)} on {backend.name} (Ctrl-C ends it)"))
            await stop.wait()
            typer.echo("stopping")

    run_command(main())
