"""The command ``stream``: what happens in a run while it happens, with the pieces of answers as they are written."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from durably.cli.address import open_client
from durably.cli.command import AsJSON, BackendName, RunName, console, find_run, print_json, run_command
from durably.cli.run_tree import STATUS_STYLES
from durably.cli.text import clock_time, one_line, plain, seconds
from durably.core.observer import (
    AttemptFailed,
    Happening,
    RunEnded,
    RunStarted,
    RunWaiting,
    StepBegan,
    StepEnded,
    StreamedDelta,
)
from durably.core.stream import StreamItem

__all__ = ["stream"]

FromOffset = Annotated[int, typer.Option("--from-offset", min=0, help="Where to start: one more than the last offset.")]

KINDS: dict[type[Any], str] = {
    RunStarted: "run_started",
    StepBegan: "step_began",
    StreamedDelta: "delta",
    AttemptFailed: "attempt_failed",
    RunWaiting: "run_waiting",
    StepEnded: "step_ended",
    RunEnded: "run_ended",
}
"""What happened, by the name of the method of an observer that is told of it."""


def stream(run: RunName, backend: BackendName, from_offset: FromOffset = 0, as_json: AsJSON = False) -> None:
    """Follow a run to its end: attempts, answers while they are written, waits."""

    async def main() -> None:
        async with open_client(backend) as engine:
            printer = Printer(console())
            async for item in (await find_run(engine, run)).stream(from_offset=from_offset):
                if as_json:
                    print_json(item_data(item))
                else:
                    printer.print(item)

    run_command(main())


def item_data(item: StreamItem) -> dict[str, Any]:
    """What happened, as JSON data: ``offset``, ``kind``, ``event``, and ``abandoned`` for a piece that was given up."""
    event = item.event
    data = event.model_dump(mode="json") if isinstance(event, StreamedDelta) else asdict(event)
    kind = {"offset": item.offset, "kind": KINDS[type(event)], "event": data}
    return {**kind, "abandoned": True} if item.abandoned else kind


class Printer:
    """Prints a stream: a line for each thing, and the pieces of an answer one behind the other.

    Args:
        out: Where to.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        self._answer: tuple[object, ...] | None = None

    def print(self, item: StreamItem) -> None:
        """Print what happened."""
        event = item.event
        if isinstance(event, StreamedDelta):
            self._print_piece(event, item.abandoned)
            return
        if self._answer is not None:
            self._out.print()
            self._answer = None
        self._out.print(_line(event), soft_wrap=True)

    def _print_piece(self, event: StreamedDelta, abandoned: bool) -> None:
        delta = event.delta
        answer = (event.step, event.attempt, delta.answer, delta.kind, delta.index, abandoned)
        if answer != self._answer:
            if self._answer is not None:
                self._out.print()
            given_up = ", given up" if abandoned else ""
            self._out.print(Text(plain(f"{event.step} writes {delta.kind}{given_up}: "), style="bright_black"), end="")
        self._answer = answer
        style = "bright_black" if abandoned or delta.kind != "text" else "default"
        self._out.print(Text(plain(delta.text), style=style), end="", soft_wrap=True)


def _line(event: Happening) -> Text:
    verb, about = _said(event)
    line = Text(clock_time(event.at), style="bright_black").append("  ")
    line.append(f"{verb:<9}", style=STATUS_STYLES.get(verb, "default")).append("  ")
    if isinstance(event, RunStarted | RunEnded) or not event.step:
        line.append(plain(f"run of {event.function}"), style="bold")
    else:
        line.append(plain(event.step))
    return line.append(f"  {about}" if about else "", style="bright_black")


def _said(event: Happening) -> tuple[str, str]:
    """What happened in a word, and what there is to add."""
    match event:
        case RunStarted():
            return "started", ""
        case StepBegan():
            return "began", f"attempt {event.attempt}" if event.attempt > 1 else ""
        case AttemptFailed():
            return "retrying", f"{_error(event.error)}  again at {clock_time(event.retry_at)}"
        case RunWaiting():
            until = "" if event.until is None else f"  until {clock_time(event.until)}"
            return "waiting", plain(event.name) + until
        case StepEnded() | RunEnded():
            result = _error(event.error) if event.error else one_line(event.output or "", 120)
            return event.status, f"{seconds(event.took)}  {result}".strip() if event.took else result
        case _:
            raise TypeError(f"a piece of an answer is no line: {event!r}")


def _error(error: dict[str, Any]) -> str:
    return one_line(f"{error.get('type')}: {error.get('message', '')}", 300)
