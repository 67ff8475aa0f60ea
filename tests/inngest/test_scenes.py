"""The engine plays scenes as a real server did: what ends runs, holds them up, starts them together or not at all.

It differs from the server in what the tests below leave open, and in the following:

- Events sent together start runs in their order; on the server in any. In the files of ``throttle`` and ``batch`` they
  stand in the order in which the server took them.
- A slot that a call leaves is taken at once; on the server up to two seconds later. So in ``concurrency`` the waiting
  calls come at other moments and not in the same order, which nobody may count on.
- A debounced run starts when its period is over; on the server a second later.
- In ``outside-api`` only those questions are asked again that the engine answers, and those fields are compared that it
  gives. Left out is what the server is behind with right after a run (an event that it does not find yet, a run that is
  still running or a sleep still waiting in its trace), a second line for each step and one more for the end in traces,
  and that its ``executor.nonstep`` leads to the run's result. The output of a run is left out of the trace's question:
  the engine shows it a little late, as the server does at other times.
- A call that was lost comes again after 20 s, about; on the server after 33 s and after 40 s, here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.inngest.scenes import Scene, data_of, play

pytestmark = pytest.mark.asyncio

SCENES = sorted(Path(__file__).with_name("wire").joinpath("scenes").glob("*.jsonl"))

LATER = {"batch": 0.7, "debounce": 1.3, "killed": 15.0, "app-down": 25.0}
"""How much later than the engine the server made a call, at most, in seconds; elsewhere 0.5."""


def scenes(*left_out: str) -> pytest.MarkDecorator:
    paths = [path for path in SCENES if path.stem not in left_out]
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@scenes()
async def test_the_engine_plays_the_scene(path: Path) -> None:
    scene = Scene(path)
    engine, app = await play(scene, seed=3)
    assert not app.unexpected
    assert not app.left
    ends = [
        {"end": run.status, "fn": run.function, "run": data_of(run.events), "output": run.output}
        for run in engine.runs.values()
    ]
    assert _sorted(ends) == _sorted(scene.ends)
    for row, status, answer in app.answers:
        assert status == row["status"]
        assert _has(answer, row["answer"]), answer


@scenes("concurrency")
async def test_calls_come_at_the_recorded_moments(path: Path) -> None:
    scene = Scene(path)
    _, app = await play(scene, seed=3)
    for row, began, _ in app.spans:
        assert -0.5 < row["at"] - began < LATER.get(scene.name, 0.5)


@pytest.mark.parametrize("seed", range(10))
async def test_calls_of_one_key_are_never_made_at_the_same_time(seed: int) -> None:
    scene = Scene(next(path for path in SCENES if path.stem == "concurrency"))
    _, app = await play(scene, seed)
    spans = {key: sorted((a, b) for row, a, b in app.spans if row["data"][0]["k"] == key) for key in "AB"}
    assert len(spans["A"]) == 12
    assert all(before[1] <= after[0] for before, after in zip(spans["A"], spans["A"][1:], strict=False))
    assert any(a < other[1] and other[0] < b for a, b in spans["A"] for other in spans["B"]), "another key goes beside"


def _has(answer: Any, recorded: Any) -> bool:
    """Whether an answer has all that was recorded of it."""
    if isinstance(recorded, dict):
        return isinstance(answer, dict) and all(
            key in answer and _has(answer[key], value) for key, value in recorded.items()
        )
    if isinstance(recorded, list):
        return len(answer) == len(recorded) and all(map(_has, answer, recorded))
    return bool(answer == recorded)


def _sorted(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)
