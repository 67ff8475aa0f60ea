"""The commands about approvals: ``approvals``, ``approve`` and ``reject``."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from durably.cli.address import open_client, open_program
from durably.cli.command import AsJSON, BackendName, console, print_json, read_json, run_command
from durably.cli.text import clock_time, one_line, plain
from durably.core.approval import ApprovalDecision

__all__ = ["approvals", "approve", "reject"]

Approval = Annotated[str, typer.Argument(metavar="APPROVAL", help="The id of an approval: see 'durably approvals'.")]
Run = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run.")]
FunctionFilter = Annotated[str | None, typer.Option("--function", metavar="ID", help="Only those of its runs.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", show_default="you", help="Who decides; recorded.")]
Arguments = Annotated[
    str | None,
    typer.Option(
        "--arguments", metavar="JSON", help="Run the tool with these arguments; needs --backend MODULE:OBJECT."
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="The reason, for the model.")]


def approvals(backend: BackendName, run: Run = None, function: FunctionFilter = None, as_json: AsJSON = False) -> None:
    """List the tool calls that wait for approval, the oldest first."""

    async def main() -> Any:
        async with open_client(backend) as engine:
            return await engine.approvals(run=run, function=function)

    found = run_command(main())
    if as_json:
        print_json({"approvals": [asdict(each) for each in found]})
        return
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("approval", "tool", "arguments", "run", "asked"):
        table.add_column(name, overflow="fold")
    for each in found:
        arguments = one_line(str(each.arguments), 120)
        table.add_row(plain(each.id), plain(each.tool), arguments, plain(each.run_id), clock_time(each.asked_at))
    console().print(table if found else "nothing waits for a person")


def approve(
    approval: Approval, backend: BackendName, arguments: Arguments = None, by: By = None, as_json: AsJSON = False
) -> None:
    """Approve a tool call."""
    changed = None if arguments is None else read_json(arguments, "--arguments")
    _answer(backend, as_json, approval, approved=True, by=by, arguments=changed)


def reject(
    approval: Approval, backend: BackendName, reason: Reason = "", by: By = None, as_json: AsJSON = False
) -> None:
    """Reject a tool call."""
    _answer(backend, as_json, approval, approved=False, by=by, reason=reason)


def _answer(backend: str, as_json: bool, approval: str, *, by: str | None, **decision: Any) -> None:
    async def main() -> ApprovalDecision:
        async with open_program(backend) as program:
            return await program.decide(approval, by=by or getpass.getuser(), **decision)

    given = run_command(main())
    if as_json:
        print_json(given.model_dump(mode="json"))
    else:
        typer.echo(plain(f"{'approved' if given.approved else 'refused'} {approval}"))
