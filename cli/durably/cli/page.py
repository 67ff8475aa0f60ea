"""The command ``ui``: the page in a browser."""

from __future__ import annotations

import ipaddress
import webbrowser
from typing import Annotated

import typer

from durably.cli.address import open_program
from durably.cli.command import BackendName, refuse, run_command
from durably.ui.guard import LOOPBACK
from durably.ui.rendering import path_of
from durably.ui.serve import serve

__all__ = ["ui"]

DEFAULT_PORT = 7070

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; beyond this machine --remote is needed.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")]
Remote = Annotated[bool, typer.Option("--remote", help="Allow other machines. They need the password.")]
Password = Annotated[
    str | None,
    typer.Option(envvar="DURABLY_UI_PASSWORD", metavar="TEXT", help="What a user must give, with any name."),
]
RunAtOnce = Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run whose page is to be opened.")]
Open = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]
Work = Annotated[bool, typer.Option("--work", help="Run the functions of MODULE:OBJECT too, in this process.")]

SHORTEST = 12


def ui(
    backend: BackendName,
    run: RunAtOnce = None,
    host: Host = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    remote: Remote = False,
    password: Password = None,
    work: Work = False,
    open_browser: Open = False,
) -> None:
    """Serve the page: runs, their waterfalls and conversations, live; approve, cancel, retry and fork.

    It listens on this machine only. --remote allows other machines, which need the password of --password or
    DURABLY_UI_PASSWORD; put TLS in front of it.
    """
    if not _is_loopback(host) and not remote:
        refuse(f"--host {host} lets other machines in: say so with --remote, and give a password")
    if remote and len(password or "") < SHORTEST:
        refuse(f"--remote needs a password of {SHORTEST} characters or more, in DURABLY_UI_PASSWORD or --password")

    def told(address: str) -> None:
        at = address + ("" if run is None else path_of(run))
        typer.echo(f"the page is at {at} (Ctrl-C ends it)")
        if open_browser:
            webbrowser.open(at)

    async def main() -> None:
        async with open_program(backend, work=work) as program:
            hosts = frozenset[str]() if remote else LOOPBACK
            await serve(program, host=host, port=port, hosts=hosts, password=password, ready=told)

    run_command(main())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK
