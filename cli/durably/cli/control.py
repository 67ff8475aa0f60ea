"""The commands that act on runs: ``start``, ``send``, ``cancel``, ``retry`` and ``fork``."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer

from durably.cli.address import open_client, open_program
from durably.cli.command import NO, AsJSON, BackendName, RunName, find_run, print_json, read_json, run_command
from durably.cli.runs import run_data
from durably.cli.text import plain, pretty_json
from durably.core import Event, Run, RunStatus

__all__ = ["cancel", "fork", "retry", "send", "start"]

FunctionName = Annotated[str, typer.Argument(metavar="FUNCTION", help="The id of a function or an agent.")]
EventName = Annotated[str, typer.Argument(metavar="EVENT", help="The name of an event.")]
Input = Annotated[
    str, typer.Option("--input", "-i", metavar="JSON", help="Its input; a text needs its quotes. @FILE reads a file.")
]
Data = Annotated[str, typer.Option("--data", "-d", metavar="JSON", help="Its data; @FILE reads a file.")]
EventId = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Its id. A second event with the same id is dropped.")
]
RunId = Annotated[str | None, typer.Option("--run-id", metavar="ID", help="Its id. Default: a random one.")]
After = Annotated[str, typer.Option("--after", metavar="STEP", help="The key of the last step to copy.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exits with 1 if it does not complete.")]


def start(
    function: FunctionName,
    backend: BackendName,
    input: Input = "null",
    run_id: RunId = None,
    wait: Wait = False,
    as_json: AsJSON = False,
) -> None:
    """Start a run. A worker that serves the function executes it."""
    data = read_json(input, "--input")

    async def main() -> Run[Any]:
        async with open_program(backend) as program:
            known = program.functions.get(function, function)  # a run of it may be the first that anybody starts here
            run = await program.client.start(known, data, run_id=run_id)
            return await run.ended() if wait else run

    _say(run_command(main()), wait, as_json)


def _say(run: Run[Any], waited: bool, as_json: bool) -> NoReturn:
    """Print a run, or what it came to if that was waited for, and end the command."""
    if as_json:
        print_json(run_data(run))
    else:
        typer.echo(plain(_told(run) if waited else run.id))
    raise typer.Exit(NO if waited and run.status is not RunStatus.COMPLETED else 0)


def _told(run: Run[Any]) -> str:
    if run.view.error is not None:
        return f"{run.view.error.get('type')}: {run.view.error.get('message', '')}"
    return pretty_json(run.view.output) if run.view.output is not None else f"{run.id} {run.status.value}"


def send(
    event: EventName, backend: BackendName, data: Data = "null", id: EventId = None, as_json: AsJSON = False
) -> None:
    """Send an event: it starts the functions it triggers, and wakes the runs that wait for it."""
    made = read_json(data, "--data")

    async def main() -> str:
        async with open_client(backend) as engine:
            return (await engine.send(Event(event, made, id=id)))[0]

    sent = run_command(main())
    if as_json:
        print_json({"id": sent})
    else:
        typer.echo(plain(sent))


def cancel(run: RunName, backend: BackendName, as_json: AsJSON = False) -> None:
    """Stop a run at its next step, with the children that it waits for."""

    async def main() -> Run[Any]:
        async with open_client(backend) as engine:
            found = await find_run(engine, run)
            await found.cancel()
            return found

    found = run_command(main())
    if as_json:
        print_json(run_data(found))
    else:
        typer.echo(plain(f"{found.id} {found.status.value}"))


def retry(run: RunName, backend: BackendName, wait: Wait = False, as_json: AsJSON = False) -> None:
    """Resume a failed run from its records, with the current code. Committed steps do not run again."""

    async def main() -> Run[Any]:
        async with open_client(backend) as engine:
            found = await (await find_run(engine, run)).retry()
            return await found.ended() if wait else found

    _say(run_command(main()), wait, as_json)


def fork(
    run: RunName,
    backend: BackendName,
    after: After,
    run_id: RunId = None,
    wait: Wait = False,
    as_json: AsJSON = False,
) -> None:
    """Start a new run from a copy of another run's records, with the current code."""

    async def main() -> Run[Any]:
        async with open_client(backend) as engine:
            made = await (await find_run(engine, run)).fork(after, run_id=run_id)
            return await made.ended() if wait else made

    _say(run_command(main()), wait, as_json)
