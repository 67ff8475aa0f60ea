"""The command ``logs``: what happened in a run, a line for each record, as it is committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.text import Text

from durably.cli.address import open_client
from durably.cli.command import AsJSON, BackendName, RunName, console, find_run, run_command
from durably.cli.run_tree import STATUS_STYLES
from durably.cli.text import clock_time, one_line, plain, seconds
from durably.core.history import StepRecord

__all__ = ["logs"]

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until the run has ended.")]

LOOK_SECONDS = 0.5


def logs(run: RunName, backend: BackendName, follow: Follow = False, as_json: AsJSON = False) -> None:
    """Print what happened in a run, in order: steps, failed attempts, waits, its end."""

    async def main() -> None:
        async with open_client(backend) as engine:
            found = await find_run(engine, run)
            shown = 0
            while True:
                ended = (await found.refresh()).status.final  # before the records are read: none comes after the end
                records = (await found.history()).records[shown:]
                _print(records, as_json)
                shown += len(records)
                if ended or not follow:
                    return
                await asyncio.sleep(LOOK_SECONDS)

    run_command(main())


def _print(records: Sequence[StepRecord], as_json: bool) -> None:
    for record in records:
        if as_json:
            typer.echo(record.to_json())
        else:
            console().print(_line(record), soft_wrap=True)


def _line(record: StepRecord) -> Text:
    line = Text(clock_time(record.at), style="bright_black").append("  ")
    line.append(f"{record.status:<9}", style=STATUS_STYLES.get(record.status, "default")).append("  ")
    line.append(plain(record.key or f"run of {record.name}"), style="bold" if not record.key else "default")
    return line.append("".join(f"  {each}" for each in _facts(record)), style="bright_black")


def _facts(record: StepRecord) -> Iterator[str]:
    if record.attempt > 1:
        yield f"attempt {record.attempt}"
    if record.took:
        yield seconds(record.took)
    if record.key and record.name:
        yield plain(record.name)
    if record.status == "retrying" and record.due is not None:
        yield f"again at {clock_time(record.due)}"
    if record.error is not None:
        yield one_line(f"{record.error.get('type')}: {record.error.get('message', '')}", 300)
    elif record.final and record.kind == "step" and record.output is not None:
        yield one_line(json.dumps(record.value, ensure_ascii=False), 120)
