"""Tables fit the terminal: no line is too long, what matters stays, and what has room is whole."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from durably.backends import MemoryBackend
from durably.cli.fitted_table import GAP, Column, FittedTable
from durably.cli.run_counts import RunCounts
from durably.cli.run_table import runs_view
from durably.cli.run_tree import trace_view
from durably.core import Context, InvokeError, RunStatus, StepError, function

WORDS = st.text(st.sampled_from("abcdefgh注é"), min_size=1, max_size=40)
COLUMNS = st.lists(
    st.builds(Column, WORDS, st.integers(1, 30), leaves=st.integers(0, 3), right=st.booleans()), min_size=1, max_size=6
)


def drawn(shown: RenderableType, width: int) -> list[str]:
    """The lines of a terminal of this width."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(shown)
    return out.getvalue().splitlines()


@settings(max_examples=200, deadline=None)
@given(COLUMNS, st.integers(0, 4), st.integers(40, 400), st.data())
def test_a_table_fits(columns: list[Column], rows: int, width: int, data: st.DataObject) -> None:
    table = FittedTable(*columns)
    cells = [[data.draw(WORDS) for _ in columns] for _ in range(rows)]
    for row in cells:
        table.add_row(*row)
    lines = drawn(table, width)
    assert len(lines) == 1 + rows, "a row is one line"

    wanted = [max(map(cell_len, [each.name, *(row[at] for row in cells)])) for at, each in enumerate(columns)]
    if sum(wanted) + GAP * (len(columns) - 1) <= width:
        assert [line.split() for line in lines] == [[each.name for each in columns], *cells], "all is whole"
    least = [min(each.least, want) for each, want in zip(columns, wanted, strict=True) if not each.leaves]
    if sum(least) + GAP * (len(least) - 1) <= width:
        assert max(map(cell_len, lines)) <= width
        stay = [each for each in columns if not each.leaves]
        assert len(lines[0].split()) >= len(stay), "the columns that matter are there"


@function("refund-desk", retries=1)
async def desk(ctx: Context[None]) -> None:
    async def look() -> None:
        raise ConnectionError("a sentence that is much longer than the line of a terminal " * 4)

    try:
        await ctx.step.run("look-at-the-order", look, retries=0)
    except StepError:
        raise RuntimeError("no order") from None


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_list_of_runs_and_a_run_say_what_matters_at_any_width(width: int) -> None:
    async def main() -> tuple[list[str], list[str]]:
        async with MemoryBackend([desk]) as backend:
            run = await backend.start(desk)
            with pytest.raises(InvokeError):
                await run.result()
            listed = drawn(runs_view(await backend.runs(), RunCounts({RunStatus.FAILED: 1}), 0.0), width)
            return listed, drawn(trace_view(await run.trace(), 0.0), width)

    listed, shown = asyncio.run(main())
    assert max(map(len, [*listed, *shown])) <= width
    head, row = (line.split() for line in listed[2:4])
    assert head[:3] == ["run", "function", "status"]
    assert row[1].startswith("refund-") and row[2] == "failed"  # noqa: PT018
    assert ("started" in head) == (width >= 80)
    assert any(line.startswith("✗ look-at-the-order") for line in shown)
    assert any(line.startswith("refund-desk attempt 1: ") for line in shown), "the function's own, too"
