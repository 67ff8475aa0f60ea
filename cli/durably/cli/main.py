"""The command ``durably``: its options that belong to no subcommand, and the list of subcommands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from typing import Annotated

try:
    import typer
except ImportError:
    sys.exit(
        "durably is installed, without its command line. Next:\n"
        "  pip install 'durably[cli,testing]'\n"
        "  durably init my-agent"
    )

from durably.cli.approvals import approvals, approve, reject
from durably.cli.control import cancel, fork, retry, send, start
from durably.cli.crash_test import crash_test
from durably.cli.doctor import doctor
from durably.cli.init import init
from durably.cli.logs import logs
from durably.cli.page import ui
from durably.cli.plan import plan_fleet
from durably.cli.replays import check, replay
from durably.cli.runs import export, runs, show
from durably.cli.stream import stream
from durably.cli.worker import prune, worker, workers

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"durably {version('durably')}")
        except PackageNotFoundError:
            typer.echo("durably (not installed)")
        raise typer.Exit


@app.callback()
def durably(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """AI agents that survive crashes."""
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, TextIOWrapper):
            # What is recorded is in any language, and JSON is UTF-8 whatever the locale says.
            out.reconfigure(encoding="utf-8")


Command = Callable[..., None]
LOOK, ACT, PERSON = "View runs", "Control runs", "Answer approvals"
START, CODE, MACHINE = "Start", "Check code", "Machines"

COMMANDS: dict[str, dict[str, Command]] = {
    START: {"init": init},
    LOOK: {"ui": ui, "runs": runs, "show": show, "logs": logs, "stream": stream, "export": export},
    ACT: {"start": start, "send": send, "cancel": cancel, "retry": retry, "fork": fork},
    PERSON: {"approvals": approvals, "approve": approve, "reject": reject},
    CODE: {"replay": replay, "check": check, "crash-test": crash_test},
    MACHINE: {"worker": worker, "workers": workers, "prune": prune, "plan": plan_fleet, "doctor": doctor},
}

for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
