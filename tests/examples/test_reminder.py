"""A scheduled reminder: it comes once, at its time, whatever crashes or is restarted before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Backend, Context, Function
from durably.testing import crash_matrix
from durably.testing.crash.engines import Store
from examples.reminder import make_assistant, outbox


@pytest.mark.asyncio
async def test_it_comes_at_its_time(tmp_path: Path) -> None:
    clock, sent = VirtualClock(), outbox()
    assistant = make_assistant("2 days", now=clock.now)
    async with MemoryBackend([assistant], clock=clock, resources={"outbox": sent}) as backend:
        assert (await backend.invoke(assistant, "Remind me of my parcel.")).text == "I will remind you."
        assert sent == {}
        began = clock.now()
        await backend.drain()
        assert clock.now() - began >= 2 * 24 * 3600
        assert list(sent.values()) == ["Your parcel is ready at the shop."]


@pytest.mark.asyncio
async def test_it_comes_after_a_restart(tmp_path: Path) -> None:
    sent = outbox()
    assistant = make_assistant("1 second")
    async with SQLiteBackend(tmp_path / "runs.db", [assistant], resources={"outbox": sent}) as backend:
        await backend.invoke(assistant, "Remind me of my parcel.")
    async with SQLiteBackend(tmp_path / "runs.db", [assistant], resources={"outbox": sent}) as backend:
        await backend.drain()
    assert list(sent.values()) == ["Your parcel is ready at the shop."]


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_it_comes_once_wherever_a_run_crashes(engine: str) -> None:
    sent = outbox()
    found: list[list[str]] = []

    def world() -> tuple[Function[str, str], dict[str, str]]:
        sent.clear()
        assistant = make_assistant("2030-01-01T09:00:00Z", now=lambda: 1_800_000_000)

        async def until_the_day_after(ctx: Context[str]) -> str:
            result = await ctx.step.invoke("ask", assistant, ctx.input)
            await ctx.step.sleep_until("the-day-after", "2030-01-02T09:00:00Z")
            return result.text

        waits = Function[str, str](
            "until-the-day-after", until_the_day_after, input_type=str, output_type=str, uses=[assistant]
        )
        return waits, sent

    def open_backend(functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
        resources = {"outbox": sent}
        if engine == "memory":
            return MemoryBackend(functions, journal=store.journal, clock=store.clock(), resources=resources)
        return SQLiteBackend(store.path / "runs.db", functions, clock=store.clock(), resources=resources)

    def state(sent: dict[str, str]) -> list[str]:
        found.append(list(sent.values()))
        return found[-1]

    report = await crash_matrix(world, "Remind me of my parcel.", state=state, backend=open_backend)
    assert report.ok, report
    assert not report.error, report
    assert found
    assert {tuple(texts) for texts in found} == {("Your parcel is ready at the shop.",)}
