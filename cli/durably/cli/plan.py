"""The command that plans a fleet: ``durably plan RUN --runs-per-day N``."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from durably.cli.address import open_client
from durably.cli.command import AsJSON, BackendName, RunName, console, find_run, print_json, refuse, run_command
from durably.cli.fleet_plan import ENGINES, Need, RunCost, cost_of, plan
from durably.core import Backend
from durably.core.history import History

__all__ = ["plan_fleet"]

PerDay = Annotated[float, typer.Option("--runs-per-day", min=0, help="The number of such runs per day.")]
Peak = Annotated[float, typer.Option("--peak", min=1, help="The ratio of the busiest minutes to the mean.")]
On = Annotated[str | None, typer.Option("--on", metavar="ENGINE", help=f"Only on one of: {', '.join(ENGINES)}.")]


def plan_fleet(
    run: RunName, backend: BackendName, runs_per_day: PerDay, peak: Peak = 4.0, on: On = None, as_json: AsJSON = False
) -> None:
    """Calculate the fleet for so many runs per day, from one recorded run."""
    if on is not None and on not in ENGINES:
        refuse(f"--on {on} is none of {', '.join(ENGINES)}")

    async def main() -> RunCost:
        async with open_client(backend) as engine:
            found = await find_run(engine, run)
            return cost_of(await with_children(engine, await found.history()))

    cost = run_command(main())
    plans = {name: plan(name, cost, runs_per_day, peak) for name in ENGINES if on in (None, name)}
    if as_json:
        print_json({name: {each.what: each.amount for each in needs} for name, needs in plans.items()})
        return
    typer.echo(
        f"One run: {cost.steps} steps in {cost.runs} runs, {cost.record_bytes:,} bytes of records, "
        f"{cost.body_seconds:.2f} s of bodies"
    )
    for name, needs in plans.items():
        console().print(_table(name, needs))


def _table(name: str, needs: list[Need]) -> Table:
    table = Table(title=name, title_justify="left", box=None, pad_edge=False, header_style="bright_black")
    table.add_column("needed", justify="right")
    table.add_column("of")
    table.add_column("since", overflow="fold")
    for each in needs:
        table.add_row(each.spelled, each.what, each.because)
    return table


async def with_children(engine: Backend, history: History) -> list[History]:
    """The records of a run, and of the runs that it waited for."""
    found = [history]
    for record in history:
        if record.kind == "invoke" and record.status == "started" and record.output is not None:
            child = json.loads(record.output)
            found += await with_children(engine, await engine.history(str(child)))
    return found
