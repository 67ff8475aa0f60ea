"""The command ``durably``: its options that belong to no subcommand, and the list of subcommands."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

try:
    import typer
except ImportError as error:
    raise ImportError("the command needs an extra: pip install 'durably[cli]'") from error

from durably.cli.crash_test import crash_test

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"durably {version('durably')}")
        except PackageNotFoundError:
            typer.echo("durably (not installed)")
        raise typer.Exit


@app.callback()  # with a callback, typer asks for the name of the subcommand although there is only one
def durably(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """AI agents that survive crashes."""


app.command("crash-test")(crash_test)
