"""An agent on every provider meets every fault and is crashed at every point; each run is held to the laws."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from durably.core import Agent
from durably.core.model import Delta, ModelRequest, ModelResponse, StreamingModel
from durably.testing import call, crash_matrix
from durably.testing.models.llm_server import Fault, LLMServer
from durably.testing.models.wire.http import HTTPRequest
from tests.providers import subjects
from tests.providers.cases import ANTHROPIC, Case
from tests.providers.rig import ANSWER, Cell, Rig, rig

pytestmark = pytest.mark.asyncio

WHOLE = {
    "408": Fault.answer(408),
    "409": Fault.answer(409),
    "429": Fault.answer(429, retry_after="7"),
    "500": Fault.answer(500),
    "503": Fault.answer(503),
    "529": Fault.answer(529),
    "reset": Fault.reset(),
    "lost": Fault.lost(),
    "cut": Fault.cut(),
    "end": Fault.end(),
    "garbage": Fault.garbage(),
}
STREAMED = {
    "lost": Fault.lost(),
    "cut-at-once": Fault.cut(0),
    "cut": Fault.cut(4),
    "end": Fault.end(4),
    "error-event": Fault.error_event(4),
}
RETRIED = [
    *(pytest.param(fault, False, id=f"{name}-whole") for name, fault in WHOLE.items()),
    *(pytest.param(fault, True, id=f"{name}-streamed") for name, fault in STREAMED.items()),
]

# -- failures that pass


@pytest.mark.parametrize(("fault", "streamed"), RETRIED)
async def test_a_failure_that_passes(case: Case, fault: Fault, streamed: bool) -> None:
    async with rig(case, ANSWER, faults=[fault], streamed=streamed) as shop:
        await shop.crash()
    check(shop, fault)
    assert max(len(cell.received) for cell in shop.cells) <= 3, "one request an attempt, and one more for a crash"


def check(shop: Rig, fault: Fault | None) -> None:
    assert len(shop.cells) > 15, "every step has points"
    for cell in shop.cells:
        *failed, last = cell.records("think")
        assert last.status == "completed", "only the whole answer is recorded"
        assert [record.status for record in failed] in ([], ["retrying"])
        assert all(one.attempt < other.attempt for one, other in pairwise([*failed, last]))
        for record in failed:
            assert record.error is not None
            assert record.error["type"] == "ModelError"
            assert record.due is not None
            assert last.at == pytest.approx(record.due), "the wait is neither cut short nor begun anew"
            if fault is not None and fault.status == 429:
                assert record.due - record.at == pytest.approx(7.0)
        if shop.streamed:  # the last attempt that a listener saw is whole
            assert "".join(each.delta.text for each in cell.shown if each.attempt == last.attempt) == ANSWER
    calm = shop.cells[0]
    assert len(calm.records("think")) == 2, "the fault happened"


async def test_a_provider_that_hangs(case: Case, streamed: bool) -> None:
    async with rig(case, ANSWER, faults=[Fault.hang()], streamed=streamed) as shop:
        shop.model = case.model(shop.server, timeout=0.3)
        # Each cell waits for the timeout, so only those where it matters.
        await shop.crash(points="think/*")
    calm = shop.cells[0]
    assert [record.status for record in calm.records("think")] == ["retrying", "completed"]


class Unreachable:
    """A model that is out of reach in the first call after :meth:`leave`."""

    def __init__(self, gone: StreamingModel, there: StreamingModel) -> None:
        self._gone, self._there, self._next = gone, there, there
        self.name = there.name

    def leave(self) -> None:
        self._next = self._gone

    def _take(self) -> StreamingModel:
        model, self._next = self._next, self._there
        return model

    async def complete(self, request: ModelRequest) -> ModelResponse:
        return await self._take().complete(request)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        async for piece in self._take().stream(request):
            yield piece


async def test_a_provider_that_cannot_be_reached(case: Case, streamed: bool) -> None:
    async with LLMServer() as closed:
        gone = case.model(closed)
    async with rig(case, ANSWER, streamed=streamed) as shop:
        shop.model = model = Unreachable(gone, shop.model)

        def build() -> tuple[Agent, Cell]:
            model.leave()
            return Rig.build(shop)

        await shop.crash(build=build)
    check(shop, None)


@pytest.mark.parametrize("case", [ANTHROPIC], ids=lambda case: case.id)
async def test_two_crashes_at_every_pair_of_points(case: Case) -> None:
    async with rig(case, ANSWER, faults=[Fault.cut(4)], streamed=True) as shop:
        report = await shop.crash(crashes=2)
    check(shop, Fault.cut(4))
    assert report.left_out == 0
    assert max(cell.crashes for cell in report.cells) == 2


async def test_a_provider_that_fails_in_a_later_turn(case: Case) -> None:
    script = call("find", order="7"), ANSWER
    async with rig(case, *script, faults=[None, Fault.answer(503)], tools=True) as shop:
        await shop.crash()
    for cell in shop.cells:
        assert list(cell.found.values()) == ["7"]


async def test_a_killed_process_comes_back_to_a_cut_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[str] = set()

    def fault(request: HTTPRequest) -> Fault | None:
        cell = request.headers["x-cell"]
        if cell in met:
            return None
        met.add(cell)
        return Fault.cut(4)

    async with LLMServer(call("find", order="7"), ANSWER, faults=fault) as server:
        monkeypatch.setenv(subjects.URL, server.url)
        report = await crash_matrix(
            subjects.shop, "Where is order 7?", mode="sigkill", state=subjects.found, points=("think/*", "run/*")
        )
    assert report.ok, report
    assert {cell.at for cell in report.cells} >= {"before_body", "after_effect", "backing_off", "after_commit"}
    assert len(met) >= len(report.cells), "each cell met the fault"


# -- failures that do not pass


FINAL = {"400": Fault.answer(400), "too-long": Fault.too_long()}


@pytest.mark.parametrize("fault", FINAL.values(), ids=FINAL.keys())
async def test_a_failure_that_does_not_pass(case: Case, fault: Fault) -> None:
    async with rig(case, ANSWER, faults=[fault] * 3) as shop:
        await shop.crash()
    for cell in shop.cells:
        [record] = cell.records("think")
        assert record.status == "failed"
        assert record.error is not None
        assert record.error["error_type"] == (
            "ContextWindowExceededError" if fault.kind == "too_long" else "ModelError"
        )
        assert len(cell.received) <= 2, "one request, and one more for a crash before its record"


async def test_attempts_are_used_up_across_crashes(case: Case) -> None:
    async with rig(case, ANSWER, faults=[Fault.answer(503)] * 9) as shop:
        await shop.crash()
    for cell in shop.cells:
        # A crash takes a number, not an attempt that failed.
        assert [record.status for record in cell.records("think")] == ["retrying"] * 3 + ["failed"]
        assert 4 <= len(cell.received) <= 5
