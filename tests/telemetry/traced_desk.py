"""The spans of the desk's run, on any engine: the tests of the others take it too."""

from __future__ import annotations

from collections import Counter

from durably.testing.conformance import Subject
from examples.refund_desk import desk
from tests.core.traced_runs import QUESTION, functions
from tests.telemetry.collected import Collected, attributes, ids, linked

SPANS = 22
"""How many the runs of the desk, of its delegate, and of the one who says yes have."""


async def shape_on(subject: Subject) -> Counter[tuple[object, ...]]:
    """Each span as its name, its kind, its step, and what stands above it and is linked; and the tokens of all."""
    collected = Collected()
    async with subject.open(functions(), observers=[collected.observer(desk)]) as backend:
        run = await backend.start(desk, QUESTION, run_id=subject.run_id())
        await run.result()
        await subject.until(lambda: len(collected.spans) >= SPANS)
    places = {ids(span)[:2]: (span.name, attributes(span).get("durably.step.key")) for span in collected.spans}
    shape: Counter[tuple[object, ...]] = Counter({("tokens",): collected.tokens})
    for span in collected.spans:
        trace, _, above = ids(span)
        said = attributes(span)
        where = "root" if above is None else places.get((trace, above))
        senders = tuple(places.get(each) for each in linked(span))
        call = said.get("gen_ai.tool.call.id")
        key, attempts = said.get("durably.step.key"), said.get("durably.step.attempts")
        shape[(span.name, span.kind, key, attempts, call, where, senders)] += 1
    return shape
