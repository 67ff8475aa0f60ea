"""A step costs the same however many there are: counted in calls of functions, not in seconds."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Backend
from tests.benchmarks.fan_out import FUNCTIONS, branches, children, nested, row

SHAPES = {"row": (row, 60), "branches": (branches, 60), "children": (children, 40), "nested": (nested, 10)}
GROWTH = 4
MOST = 1.3
"""How many times the calls of a step there may be where there are four times as many steps."""


async def calls_a_step(backend: Backend, function: Any, size: int) -> float:
    """How many functions are called for each step of a run, in the thread of the event loop."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    async with backend:
        await backend.invoke(function, 2)  # caches are filled
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            assert await backend.invoke(function, size) == size
        finally:
            sys.setprofile(before)
    return calls / size


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_among_many_calls_no_more_functions_in_memory(shape: str) -> None:
    function, size = SHAPES[shape]
    few, many = (asyncio.run(calls_a_step(MemoryBackend(FUNCTIONS), function, n)) for n in (size, GROWTH * size))
    assert many <= MOST * few, f"{few:.0f} calls a step at {size}, {many:.0f} at {GROWTH * size}"


@pytest.mark.parametrize("shape", ["branches", "children"])
def test_a_step_among_many_runs_no_more_statements_in_a_file(shape: str, tmp_path: Path) -> None:
    function: Any
    function, size = SHAPES[shape]

    async def statements(size: int) -> float:
        backend = SQLiteBackend(tmp_path / f"{size}.db", FUNCTIONS)
        run, count = backend.journal.file.run, 0

        def counted(sql: str, *values: Any) -> Any:
            nonlocal count
            count += 1
            return run(sql, *values)

        async with backend:
            backend.journal.file.run = counted  # type: ignore[method-assign]
            assert await backend.invoke(function, size) == size
        return count / size

    few, many = (asyncio.run(statements(n)) for n in (size, GROWTH * size))
    assert many <= MOST * few, f"{few:.1f} statements a step at {size}, {many:.1f} at {GROWTH * size}"
