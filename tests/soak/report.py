"""The numbers of a soak."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.soak.fleet import HARMS, Fleet, Sample
from tests.soak.laws import Facts, late_starts

__all__ = ["report"]

COLUMNS = 6
"""How many moments are shown of what was measured over time."""


def report(facts: Facts, fleet: Fleet) -> Iterator[str]:
    """The numbers, a line each."""
    starts = [len(attempts) for attempts in facts.bodies_of("attempt").values()]
    retried = sum(1 for _ in facts.steps(None, "retrying"))
    harms = ", ".join(f"{len(facts.lines[harm])} {harm}" for harm in HARMS)
    crashes = sum(len(json.loads(row["crashes"])) for row in facts.runs.values())
    yield f"runs              {len(facts.runs)}, {len(facts.lines['start'])} of them started by the client"
    yield f"harms             {harms}; runs were cut off {crashes} times"
    yield f"body starts       {sum(starts)} of {len(starts)} steps"
    again = sum(starts) - len(starts) - retried
    yield f"repeated starts   {again}, and {retried} retries; most of one step: {max(starts)}"
    yield f"late starts       {len(late_starts(facts))}"
    yield "run latency       median and worst, in seconds"
    yield from _latencies(facts)
    shown = _some(fleet.samples)
    yield f"at seconds        {'  '.join(f'{each.at:6.0f}' for each in shown)}"
    for place in range(fleet.size):
        yield f"worker-{place} in MB    {'  '.join(f'{each.memory[place] / 1e6:6.1f}' for each in shown)}"
    largest = max(each.log for each in fleet.samples)
    yield f"WAL in kB         {'  '.join(f'{each.log / 1e3:6.0f}' for each in shown)}  largest {largest / 1e3:.0f}"


def _latencies(facts: Facts) -> Iterator[str]:
    took: dict[str, list[float]] = defaultdict(list)
    for run, row in facts.runs.items():
        took[row["function"]].append(facts.ended_at(run) - row["created_at"])
    for function, seconds in sorted(took.items()):
        yield f"  {function:<16}{statistics.median(seconds):6.2f}  {max(seconds):6.2f}  of {len(seconds)}"


def _some(samples: Sequence[Sample]) -> list[Sample]:
    last = len(samples) - 1
    return [samples[round(last * place / (COLUMNS - 1))] for place in range(COLUMNS)]
