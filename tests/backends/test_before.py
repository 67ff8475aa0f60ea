"""A database that version 0.1.0 left behind, with a run stopped at each kind of step: all of them go on here."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pytest

from durably.backends import SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import AgentResult, Event, InvokeError, RunStatus, approve
from durably.core.history import History, StepRecord
from durably.core.ids import derive_id
from tests.fixtures import before_functions as before

BEFORE = Path(before.__file__).with_name("before")
BEGIN = 1767225600.0
"""When the first of its runs began; the last of its workers died within a minute."""


def child(run: str, step: str = "call") -> str:
    return derive_id("child", run, step)


TOLD = derive_id("run", derive_id("event", "teller", "tell#0"), "listener")
SCHEDULED = derive_id("run", "scheduled", "listener")

SEQUENCE = ["ONE", "AGAIN", 2, True, "7 3"]
CALLED = ["7", True, "NonRetriableError", "all is wrong"]
PAID = {"id": "7", "paid": False}

RESULTS: dict[str, Any] = {
    "completed": SEQUENCE,
    "completed-hasty": "retried",
    "completed-caller": CALLED,
    child("completed-caller"): PAID,
    child("completed-caller", "wait"): InvokeError,
    child("completed-caller", "fail"): InvokeError,
    "completed-shop": "Done.",
    "failed": InvokeError,
    derive_id("failure", "failed", ""): "FAILED: NOTHING WILL NOT DO",
    "cancelled": InvokeError,
    child("cancelled"): InvokeError,
    "sequence": SEQUENCE,
    "sequence-closing": SEQUENCE,
    "branches": ["LEFT", "thgir", "this will not do", "BOTH"],
    "sleeper": "AFTER",
    "waiter": ["yes", None, "HEARD"],
    "waiter-late": ["at last", None, "HEARD"],
    "caller": CALLED,
    child("caller"): PAID,
    child("caller", "wait"): InvokeError,
    child("caller", "fail"): InvokeError,
    "caller-done": CALLED,
    child("caller-done"): PAID,
    child("caller-done", "wait"): InvokeError,
    child("caller-done", "fail"): InvokeError,
    "patient": "here",
    "rising": ["OH", 2, "UP"],
    "careful": "INTERRUPTED",
    "teller": "TOLD 2",
    TOLD: "TELLER",
    SCHEDULED: "THE CLOCK",
    "single": InvokeError,
    "single-newer": "ALONE",
    "shop": "Done.",
    "shop-shipping": "Done.",
    "clerk": "Refunded.",
    "unbegun": ["TWO", "AGAIN", 2, True, "7 3"],
}
"""What every run comes to."""

EFFECTS = {
    "sequence": [("shout:1", 2), ("count", 1), ("find", 1), ("pay", 1), ("close", 1)],
    "sequence-closing": [("close", 2)],
    "branches": [("gather[0]/then", 2), ("gather[1]/slowly", 2), ("shout", 1)],
    "sleeper": [("shout:1", 1)],
    "waiter": [("shout", 1)],
    "waiter-late": [("shout", 1)],
    child("caller"): [("find", 2)],
    child("caller", "fail"): [("shout", 1)],
    child("caller-done", "fail"): [("shout", 1)],
    "patient": [("unsteady", 3), ("closed", 1), ("closed", 2)],
    "rising": [("shout:1", 2)],
    "careful": [("shout", 1)],
    "teller": [("shout", 2)],
    TOLD: [("shout", 2)],
    SCHEDULED: [("shout", 1)],
    "single-newer": [("shout", 1)],
    "shop": [("gather[1]/tool-ship", 2)],
    "clerk": [("tool-refund", 1)],
    "unbegun": [("shout", 1), ("shout:1", 1), ("count", 1), ("find", 1), ("pay", 1), ("close", 1)],
}
"""The bodies that are still to run, each with the number of its attempt: the crash may have cut off the first one."""


def written() -> dict[str, tuple[StepRecord, ...]]:
    """The records of each run as version 0.1.0 read them."""
    lines = (BEFORE / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    records = [StepRecord.from_json(line) for line in lines]
    return {run: tuple(each) for run, each in groupby(records, lambda record: record.run_id)}


@dataclass(frozen=True, kw_only=True)
class After:
    """What became of the database: by run its status, its result or error, and its history; and what ran."""

    statuses: dict[str, RunStatus]
    results: dict[str, Any]
    histories: dict[str, History]
    effects: dict[str, list[tuple[str, int]]]


async def go_on(path: Path, evict: Literal["never", "always"]) -> After:
    before.EFFECTS.clear()
    async with SQLiteBackend(path, before.FUNCTIONS, clock=VirtualClock(BEGIN + 60), evict=evict) as backend:
        await backend.send(Event("before/answer", {"to": {"name": "waiter-late"}, "text": "at last"}))
        (asked,) = [each for each in await (await backend.run("clerk")).history() if each.key == "request-refund"]
        await backend.send(approve(asked.value["approval"]))
        await backend.start(before.single, 5.0, run_id="single-newer")
        await backend.drain()
        runs = await backend.runs()
        results: dict[str, Any] = {}
        for run in runs:
            try:
                results[run.id] = await run.result()
            except InvokeError as error:
                results[run.id] = error
        effects: dict[str, list[tuple[str, int]]] = {}
        for run_id, key, attempt in before.EFFECTS:
            effects.setdefault(run_id, []).append((key, attempt))
        return After(
            statuses={run.id: run.status for run in runs},
            results=results,
            histories={run.id: await run.history() for run in runs},
            effects=effects,
        )


@pytest.fixture(scope="module", params=["never", "always"])
def after(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> After:
    path = tmp_path_factory.mktemp("before") / "runs.sqlite"
    shutil.copy(BEFORE / "runs.sqlite", path)
    return asyncio.run(go_on(path, request.param))


def test_the_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    async def read() -> dict[str, History]:
        async with SQLiteBackend(tmp_path / "runs.sqlite", clock=VirtualClock(BEGIN + 60)) as backend:
            return {run.id: await run.history() for run in await backend.runs()}

    shutil.copy(BEFORE / "runs.sqlite", tmp_path / "runs.sqlite")
    assert {run: history.records for run, history in asyncio.run(read()).items()} == written()


class _OlderRunsHaveNotBegun(SQLiteJournal):
    """A reader that finds the beginning of an older run, and nothing behind it."""

    def records(self, run_id: str) -> list[StepRecord]:
        return super().records(run_id)[:1]


class _ReadsOlderRowsAnew(SQLiteJournal):
    """A reader that gives older records the values that new ones have where nothing is said."""

    def records(self, run_id: str) -> list[StepRecord]:
        return [replace(record, attempt=1, due=None) for record in super().records(run_id)]


@pytest.mark.parametrize("broken", [_OlderRunsHaveNotBegun, _ReadsOlderRowsAnew])
def test_a_broken_reader_is_noticed(
    broken: type[SQLiteJournal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteBackend, "storage", broken)
    with pytest.raises(AssertionError):
        test_the_records_are_read_as_they_were_written(tmp_path)


def test_what_an_old_run_asks_is_listed_and_answered(tmp_path: Path) -> None:
    async def answer() -> Any:
        async with SQLiteBackend(tmp_path / "runs.sqlite", before.FUNCTIONS, clock=VirtualClock(BEGIN + 60)) as backend:
            (asked,) = await backend.approvals()
            assert (asked.run_id, asked.step, asked.tool, asked.arguments) == (
                "clerk",
                "request-refund",
                "refund",
                None,
            )
            await backend.approve(asked.id, by="Zoe")
            result = await (await backend.run("clerk")).result()
            assert await backend.approvals() == []
            return result

    shutil.copy(BEFORE / "runs.sqlite", tmp_path / "runs.sqlite")
    assert asyncio.run(answer()).text == RESULTS["clerk"]


def test_every_run_ends(after: After) -> None:
    assert after.results.keys() == RESULTS.keys() >= written().keys()
    failed = {run for run, result in RESULTS.items() if result is InvokeError}
    late = {child(caller, "wait") for caller in ("completed-caller", "caller", "caller-done")}
    cancelled = {"cancelled", child("cancelled"), "single", *late}
    for run, status in after.statuses.items():
        expected = RunStatus.CANCELLED if run in cancelled else RunStatus.FAILED if run in failed else "completed"
        assert status == expected, run


@pytest.mark.parametrize("run", RESULTS)
def test_a_run_ends_with_its_result(after: After, run: str) -> None:
    result = after.results[run]
    if RESULTS[run] is InvokeError:
        assert isinstance(result, InvokeError)
        return
    found = result.text if isinstance(result, AgentResult) else result
    assert (found.model_dump() if isinstance(found, before.Order) else found) == RESULTS[run]


@pytest.mark.parametrize("run", written())
def test_its_records_are_the_beginning_of_its_history(after: After, run: str) -> None:
    records = written()[run]
    history = after.histories[run]
    assert history.records[: len(records)] == records
    assert History.from_jsonl(history.to_jsonl()) == history


def test_what_was_committed_does_not_run_again(after: After) -> None:
    committed = {(run, record.key) for run, records in written().items() for record in records if record.final}
    again = [(run, key) for run, effects in after.effects.items() for key, _ in effects if (run, key) in committed]
    assert again == []


def test_each_body_that_was_left_runs_once(after: After) -> None:
    assert {run: sorted(each) for run, each in after.effects.items()} == {
        run: sorted(each) for run, each in EFFECTS.items()
    }


def test_what_was_due_comes_at_its_moment(after: After) -> None:
    for run, key in (("sleeper", "rest"), ("patient", "unsteady"), ("rising", "")):
        due = [record.due for record in written()[run] if record.due is not None]
        settled = next(record for record in after.histories[run][len(written()[run]) :] if key in ("", record.key))
        assert due == [pytest.approx(settled.at, abs=0.002)], run
    assert after.histories[SCHEDULED][0].at == BEGIN + 7200


def test_a_tool_that_a_crash_cut_off_is_told_to_the_model(after: After) -> None:
    (shipping,) = (each for each in after.histories["shop-shipping"].steps() if each.key == "gather[1]/tool-ship")
    assert shipping.error is not None
    assert shipping.error["type"] == "StepInterruptedError"


@pytest.mark.parametrize("run", ["completed-shop", "shop", "clerk"])
def test_the_conversation_of_an_agent_is_put_together(after: After, run: str) -> None:
    result = after.results[run]
    tools = [each for each in after.histories[run].steps() if "tool-" in each.key]
    assert result.tool_calls == len(tools) == (1 if run == "clerk" else 3)
    assert [message.role for message in result.messages] == (
        ["user", "assistant", "tool", "assistant"]
        if run == "clerk"
        else ["user", "assistant", "tool", "assistant", "tool", "tool", "assistant"]
    )
