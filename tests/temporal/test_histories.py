"""A run's history: exported, replayed elsewhere, and gone on with in a fresh one, with every kind of step in it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.converter import DataConverter

from durably.backends.temporal import TemporalBackend
from durably.core import Context, Event, InvokeError, Run, function
from durably.core.history import History
from durably.core.ids import new_id
from durably.testing import replay
from tests.temporal.conftest import OpenTemporal
from tests.temporal.test_client import Encryption
from tests.temporal.test_code_change import EFFECTS, OPTIONS, PROGRAM, changing, inner, sleeper, until_it_waits

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def _no_effects() -> None:
    EFFECTS.clear()


async def go(backend: TemporalBackend) -> Run[Any]:
    """Run the program with every kind of step to its end."""
    run = await backend.start(changing)
    await until_it_waits(run)
    await backend.send(Event("changed/go", {"run": run.id}))
    assert await run.result() == "ended"
    return run


def told(history: History, run_id: str) -> set[tuple[Any, ...]]:
    """What a history says of its steps; ids that depend on the run are left out."""
    return {(each.key, each.kind, each.status, each.input.replace(run_id, "")) for each in history.steps()}


async def test_a_run_with_every_kind_of_step_is_replayed_without_temporal(open_temporal: OpenTemporal) -> None:
    async with open_temporal(changing, inner, sleeper, **OPTIONS) as backend:
        run = await go(backend)
        history = History.from_jsonl((await run.history()).to_jsonl())
    done = Counter(EFFECTS)
    assert await replay(history, [changing]) == "ended"
    assert done == EFFECTS, "no body runs"
    flaky = [(each.status, each.attempt) for each in history if each.key == "c"]
    assert flaky == [("retrying", 1), ("completed", 2)]


@pytest.mark.parametrize("codec", [False, True])
@pytest.mark.parametrize("after", [4, 20])
async def test_a_fresh_history_goes_on_around_gathers_and_waits(
    temporal_address: str, open_temporal: OpenTemporal, after: int, codec: bool
) -> None:
    converter = DataConverter(payload_codec=Encryption()) if codec else DataConverter.default
    client = await Client.connect(temporal_address, data_converter=converter)
    async with open_temporal(changing, inner, sleeper, **OPTIONS) as backend:
        run = await go(backend)
        expected, done = told(await run.history(), run.id), EFFECTS.total()
    EFFECTS.clear()
    queue = f"fresh-{new_id()}"
    made = TemporalBackend(
        client, task_queue=queue, functions=[changing, inner, sleeper], continue_after=after, **OPTIONS
    )
    async with made as backend:
        run = await go(backend)
        history = await run.history()
        found = await client.get_workflow_handle(run.id).describe()
        assert found.raw_description.workflow_execution_info.first_run_id != found.run_id, "it did go on in another one"
        raw = await client.get_workflow_handle(run.id).fetch_history()
    assert told(history, run.id) == expected
    assert done == EFFECTS.total()
    assert [each.seq for each in history] == list(range(len(history)))
    assert [each.status for each in history if not each.key] == ["started", "completed"]
    payloads = b"".join(each.SerializeToString() for each in raw.events)
    assert (b'"ended"' in payloads) is not codec, "a codec sees every value; names of steps and events are none"
    assert await replay(history, [changing]) == "ended"
    assert len(PROGRAM) == 11


async def test_the_records_of_a_run_stay_while_it_goes_on_in_another_history(open_temporal: OpenTemporal) -> None:
    @function("again", retries=3)
    async def again(ctx: Context[None]) -> None:
        await ctx.step.run("a", lambda: seen.append(ctx.attempt))
        await ctx.step.sleep("retry", 0.01)
        await ctx.step.sleep("retry", 0.01)
        raise ConnectionError("outside any step, with spaces: and a colon")

    seen: list[int] = []
    longest: tuple[Any, ...] = ()
    async with open_temporal(again, **OPTIONS) as backend:
        run = await backend.start(again)
        while not run.status.final:
            records = tuple((each.key, each.status) for each in await run.history())
            assert records[: len(longest)] == longest or longest[: len(records)] == records, "it is only added to"
            longest = max(longest, records, key=len)
            await run.refresh()
        with pytest.raises(InvokeError):
            await run.result()
        history = await run.history()
    assert seen == [1]
    ends = [(each.status, each.attempt) for each in history if not each.key]
    assert ends == [("started", 1), ("retrying", 1), ("retrying", 2), ("retrying", 3), ("failed", 1)]
    whys = {each.error["message"] for each in history if each.error and each.status == "retrying"}
    assert whys == {"outside any step, with spaces: and a colon"}
    assert [each.key for each in history.steps()] == ["a", "retry", "retry:1"]
