"""Histories that version 0.1.0 left on Temporal: this version replays them, from any task on, and reads their records.

They are replayed by Temporal's own `Replayer`, with the workflows, the runner and the interceptors of a worker of now.
Where the library asks the server for a history, it is given the recorded one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import (
    Client,
    DescribeWorkflowInput,
    FetchWorkflowHistoryEventsInput,
    Interceptor,
    OutboundInterceptor,
    WorkflowExecutionStatus,
    WorkflowHistory,
)
from temporalio.worker import Plugin, Replayer, ReplayerConfig, Worker, WorkerConfig, WorkflowReplayResult
from temporalio.workflow import NondeterminismError

from durably.backends.temporal import TemporalBackend
from durably.core import Context, Function, FunctionRef, Run, RunStatus, function
from durably.core.history import History, StepRecord
from durably.core.run_view import RunView
from tests.fixtures import before_functions as before

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

BEFORE = Path(before.__file__).with_name("before")
OPTIONS: dict[str, Any] = {"task_queue": "before", "heartbeat": timedelta(seconds=5), "continue_after": 30}
"""As they were when the histories were made."""


def recorded_histories() -> list[WorkflowHistory]:
    lines = gzip.decompress((BEFORE / "temporal.jsonl.gz").read_bytes()).decode().splitlines()
    rows = map(json.loads, lines)
    return [WorkflowHistory.from_json(row["workflow_id"], row["history"]) for row in rows]


def recorded_records() -> dict[str, History]:
    lines = (BEFORE / "temporal-records.jsonl").read_text(encoding="utf-8").splitlines()
    records = map(StepRecord.from_json, lines)
    return {run: History(each) for run, each in groupby(records, lambda record: record.run_id)}


HISTORIES = recorded_histories()
RECORDS = recorded_records()


class Archive(Interceptor):
    """Answers questions about the recorded workflows in the place of a server.

    Attributes:
        histories: What there is of each, by Temporal's id of the history.
    """

    def __init__(self, histories: Sequence[WorkflowHistory]) -> None:
        self.histories = {each.run_id: each for each in histories}

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Librarian(next, self)

    def find(self, workflow_id: str, run_id: str | None) -> WorkflowHistory | None:
        """A history, or the newest of a workflow."""
        if run_id is not None:
            return self.histories.get(run_id)
        return next((each for each in reversed(self.histories.values()) if each.workflow_id == workflow_id), None)


class _Librarian(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, archive: Archive) -> None:
        super().__init__(next)
        self._archive = archive

    def fetch_workflow_history_events(self, input: FetchWorkflowHistoryEventsInput) -> Any:
        found = self._archive.find(input.id, input.run_id)
        return super().fetch_workflow_history_events(input) if found is None else _each(found.events)

    async def describe_workflow(self, input: DescribeWorkflowInput) -> Any:
        if self._archive.find(input.id, input.run_id) is None:
            return await super().describe_workflow(input)
        return SimpleNamespace(
            raw_description=DescribeWorkflowExecutionResponse(), status=WorkflowExecutionStatus.COMPLETED
        )


async def _each(events: Sequence[HistoryEvent]) -> AsyncIterator[HistoryEvent]:
    for event in events:
        yield event


class Configuration(Plugin):
    """Takes down how the library configures its worker."""

    def __init__(self) -> None:
        self.worker: dict[str, Any] = {}

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        self.worker.update(config)
        return config

    async def run_worker(self, worker: Worker, next: Any) -> None:
        await next(worker)

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        return config

    @asynccontextmanager
    async def run_replayer(
        self, replayer: Replayer, histories: AsyncIterator[WorkflowHistory], next: Any
    ) -> AsyncIterator[AsyncIterator[WorkflowReplayResult]]:
        async with next(replayer, histories) as results:
            yield results


class Now:
    """The code of now before the recorded histories.

    Args:
        archive: The histories.
        backend: A backend of now, whose worker is up.
        replayer: Replays with what that worker works with.
    """

    def __init__(self, archive: Archive, backend: TemporalBackend, replayer: Replayer) -> None:
        self.archive = archive
        self.backend = backend
        self._replayer = replayer

    async def replay(self, history: WorkflowHistory) -> None:
        """Replay a history. Raises what the code of now does not do as it is recorded."""
        self.archive.histories[history.run_id] = history
        before.EFFECTS.clear()
        await self._replayer.replay_workflow(history)
        assert before.EFFECTS == []


@asynccontextmanager
async def open_now(address: str, functions: Sequence[Function[Any, Any]]) -> AsyncIterator[Now]:
    archive, configuration = Archive(HISTORIES), Configuration()
    client = await Client.connect(address, interceptors=[archive])
    backend = TemporalBackend(
        client,
        functions=functions,
        on_code_change="wait",  # what does not fit raises, and is not made into the end of the run
        worker_options={"plugins": [configuration]},
        **OPTIONS,
    )
    async with backend:
        config = configuration.worker
        replayer = Replayer(
            workflows=config["workflows"],
            workflow_runner=config["workflow_runner"],
            interceptors=config["interceptors"],
            data_converter=client.data_converter,
        )
        yield Now(archive, backend, replayer)


@pytest_asyncio.fixture
async def now(temporal_address: str) -> AsyncIterator[Now]:
    async with open_now(temporal_address, before.FUNCTIONS) as opened:
        yield opened


each_history = pytest.mark.parametrize(
    "history", HISTORIES, ids=[f"{number}-{each.workflow_id}" for number, each in enumerate(HISTORIES)]
)


@each_history
async def test_a_history_is_replayed(now: Now, history: WorkflowHistory) -> None:
    await now.replay(history)


@each_history
async def test_a_run_is_taken_up_at_each_of_its_tasks(now: Now, history: WorkflowHistory) -> None:
    for piece in cut(history):
        await now.replay(piece)


def cut(history: WorkflowHistory) -> list[WorkflowHistory]:
    """A history as it was at the beginning of each of its workflow tasks."""
    tasks = [
        place for place, event in enumerate(history.events) if event.HasField("workflow_task_started_event_attributes")
    ]
    return [replace(history, events=history.events[: place + 1]) for place in tasks]


@function("sequence")
async def changed(ctx: Context[str]) -> list[Any]:
    """The function of this id as it might be in a later version of its program."""
    first = await ctx.step.run("shout", before.shout, ctx.input)
    return [first, await ctx.step.run("count", before.count, [first])]


OTHERS = [each for each in before.FUNCTIONS if each.id != changed.id]


async def test_what_a_run_recorded_is_held_against_changed_code(temporal_address: str) -> None:
    history = next(each for each in HISTORIES if each.workflow_id == "sequence")
    asked = "recorded step 'shout:1', the code asked for step 'count'"
    async with open_now(temporal_address, [*OTHERS, changed]) as later:
        with pytest.raises(RuntimeError, match=asked):
            await later.replay(cut(history)[2])


async def test_temporals_own_check_is_made(temporal_address: str) -> None:
    history = next(each for each in reversed(HISTORIES) if each.workflow_id == "sequence")
    async with open_now(temporal_address, [*OTHERS, changed]) as later:
        with pytest.raises(NondeterminismError):
            await later.replay(history)


@pytest.mark.parametrize("run_id", RECORDS)
async def test_the_records_of_a_run_are_those_that_were_read_before(now: Now, run_id: str) -> None:
    view = RunView(id=run_id, function=RECORDS[run_id].function, status=RunStatus.COMPLETED)
    run: Run[Any] = Run(now.backend, FunctionRef[Any, Any](view.function), view)
    now_read = iter([replace(record, seq=0) for record in await run.history()])
    for record in RECORDS[run_id]:
        # Between them stands now what Temporal kept of attempts that failed.
        found = next(each for each in now_read if each.status != "retrying" or record.status == "retrying")
        assert found == replace(record, seq=0)
    assert [each.status for each in now_read] == []
