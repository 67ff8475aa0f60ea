"""What the terminal says of waits, of numbers of runs, and of the pieces of an answer."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from durably.backends import MemoryBackend
from durably.cli.run_counts import LIVE_COUNTED, RunCounts, count_runs
from durably.cli.run_table import spell_counts
from durably.cli.stream import Printer, item_data
from durably.cli.waits import spell_waits
from durably.core import Context, RunStatus, function
from durably.core.model import Delta, StreamedDelta
from durably.core.observer import AttemptFailed
from durably.core.run_view import WaitingFor, WaitKind
from durably.core.stream import StreamItem


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("event", "order/paid", "waits for event order/paid since 3 m 00 s"),
        ("approval", "refund", "waits for a person to approve refund since 3 m 00 s"),
        ("timer", "", "waits for time to pass since 3 m 00 s"),
        ("child", "policy", "waits for a run of policy since 3 m 00 s"),
        ("turn", "concurrency", "waits for its turn, held back by concurrency since 3 m 00 s"),
        ("worker", "echo", "waits for a worker that serves echo since 3 m 00 s"),
    ],
)
def test_a_wait_is_said_in_words(kind: WaitKind, name: str, said: str) -> None:
    wait = WaitingFor(kind=kind, name=name, since=1000.0)
    assert spell_waits((wait,), 1180.0) == said
    assert spell_waits((wait, wait), 1180.0) == f"{said}, and 1 more"
    assert (
        spell_waits((WaitingFor(kind=kind, name=name, since=1000.0, until=1240.0),), 1180.0) == f"{said}, 1 m 00 s left"
    )
    assert spell_waits((), 1180.0) == ""


def test_a_name_in_a_wait_is_no_command_for_the_terminal() -> None:
    assert "\x1b" not in spell_waits((WaitingFor(kind="event", name="\x1b[2J", since=0.0),), 1.0)


def test_numbers_of_runs_say_what_was_not_counted() -> None:
    assert spell_counts(RunCounts({})).plain == "no runs"
    assert spell_counts(RunCounts({RunStatus.FAILED: 1})).plain == "1 run: 1 failed"
    some = RunCounts({RunStatus.WAITING: 200, RunStatus.COMPLETED: 1000}, partial=True)
    text = "1,200+ runs: 0+ running, 200+ waiting, 0+ retrying, 0+ stuck, 1,000 completed"
    assert spell_counts(some).plain == text


@function("waiter")
async def waiter(ctx: Context[int]) -> None:
    """Waits, if its input says so."""
    if ctx.input:
        await ctx.step.wait_for_event("go", "go")


@pytest.mark.parametrize("waiting", [1, LIVE_COUNTED, LIVE_COUNTED + 1])
def test_live_runs_are_counted_up_to_a_limit(waiting: int) -> None:
    async def main() -> tuple[RunCounts, RunCounts, RunCounts]:
        async with MemoryBackend([waiter]) as backend:
            await backend.invoke(waiter, 0)
            for _ in range(waiting):
                await backend.start(waiter, 1)
            await backend.drain()
            ended = await count_runs(backend, {"status": RunStatus.COMPLETED})
            live = await count_runs(backend, {"status": [RunStatus.WAITING, RunStatus.RUNNING]})
            return await count_runs(backend, {}), ended, live

    everything, ended, live = asyncio.run(main())
    counted = min(waiting, LIVE_COUNTED)
    assert dict(everything.numbers) == {RunStatus.WAITING: counted, RunStatus.COMPLETED: 1}
    assert dict(ended.numbers) == {RunStatus.COMPLETED: 1}
    assert dict(live.numbers) == {RunStatus.WAITING: counted}
    assert (everything.partial, ended.partial, live.partial) == (waiting > counted, False, waiting > counted)


def piece(text: str, attempt: int = 1) -> StreamedDelta:
    return StreamedDelta(run_id="r", step="think", attempt=attempt, offset=0, delta=Delta(kind="text", text=text))


def test_pieces_of_an_answer_are_printed_one_behind_the_other() -> None:
    out = io.StringIO()
    printer = Printer(Console(file=out, width=100))
    printer.print(StreamItem(1, piece("It is "), abandoned=True))
    failed = AttemptFailed(
        run_id="r", function="f", step="think", attempt=1, error={"type": "E", "message": "no"}, at=1.0, retry_at=1.0
    )
    printer.print(StreamItem(2, failed))
    for text in ("It is ", "on its \x1b[2J", "way."):
        printer.print(StreamItem(3, piece(text, 2)))
    lines = out.getvalue().splitlines()
    assert lines[0] == "think writes text, given up: It is "
    assert "retrying   think  E: no" in lines[1]
    assert lines[2] == "think writes text: It is on its \\u001b[2Jway."
    assert item_data(StreamItem(1, piece("x"), abandoned=True))["abandoned"] is True
    assert "abandoned" not in item_data(StreamItem(1, piece("x")))
