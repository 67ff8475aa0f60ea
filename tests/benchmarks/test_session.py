"""A long session stays small, and its turns do no more work at the end than at the beginning."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, AgentInput
from tests.benchmarks.session import Speaker, grow

TURNS = 120


@pytest.mark.asyncio
async def test_a_long_session_and_its_runs_stay_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    grown = await grow(path, TURNS)
    assert grown.session < 0.75 * grown.said, "its messages are kept compressed"
    assert grown.runs < 1.3 * grown.said, "its runs do not repeat what was said before, nor a result its step"
    assert grown.session + grown.runs < 2 * grown.said


class _Calls:
    """Counts the calls that Python makes, which are the same on a busy machine."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        self.count += event in ("call", "c_call")

    async def of(self, turn: Callable[[], Any]) -> int:
        before = self.count
        sys.setprofile(self)
        try:
            await turn()
        finally:
            sys.setprofile(None)
        return self.count - before


@pytest.mark.asyncio
async def test_a_turn_does_no_more_work_at_the_end_of_a_long_session() -> None:
    model, calls = Speaker(0), _Calls()
    agent = Agent("chat", model=model, instructions="", sessions="backend")
    async with MemoryBackend([agent]) as backend:

        async def turn() -> None:
            await backend.invoke(agent, AgentInput(message=model.say(), session_key="chat"))

        work = [await calls.of(turn) for _ in range(TURNS)]
    early, late = min(work[10:20]), min(work[-10:])
    assert late < 1.1 * early, f"{early} calls at the beginning, {late} at the end"
