"""Each law, on a recovered run that was tampered with: a law that never fires proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from durably.core import AgentResult
from durably.core.backend import RunStatus
from durably.core.history import History
from durably.core.messages import ToolResultMessage
from durably.testing.crash.engines import find_engine
from durably.testing.crash.experiment import Cell, run_cell
from durably.testing.crash.faults import Crash
from durably.testing.crash.laws import LAWS, broken_laws
from durably.testing.crash.ledger import Entry
from durably.testing.crash.scenario import Scenario
from durably.testing.crash.snapshot import RunLog, Snapshot
from tests.testing import agents

pytestmark = pytest.mark.asyncio

CRASH = (Crash("flaky", "after_effect", 0, "every-kind"),)


def scenario() -> Scenario:
    return Scenario(
        target=agents.every_kind,
        data="ann",
        engine=find_engine("memory"),
        functions=[agents.look_up, agents.watch],
        events=[agents.ANSWER],
    )


def root(cell: Cell) -> RunLog:
    return cell.after.runs[cell.run_id]


def put(cell: Cell, log: RunLog) -> None:
    cell.after = Snapshot({**cell.after.runs, log.id: log}, cell.after.events)


def records(cell: Cell, change: Callable[[list[Any]], list[Any]]) -> None:
    put(cell, replace(root(cell), history=History(change(list(root(cell).history)))))


def child(cell: Cell) -> RunLog:
    return next(log for log in cell.after.runs.values() if log.parent)


def another_result(cell: Cell) -> None:
    cell.output = '"something else"'


def another_world(cell: Cell) -> None:
    cell.state = "[2]"


def runs_after_its_record(cell: Cell) -> None:
    cell.ledger.entries.append(Entry("started", "every-kind", cell.run_id, "flaky", 1, 3, "k"))


def starts_too_often(cell: Cell) -> None:
    place = next(number for number, entry in enumerate(cell.ledger.entries) if entry.key == "flaky")
    cell.ledger.entries[place:place] = [cell.ledger.entries[place]] * 3


def loses_a_record(cell: Cell) -> None:
    records(cell, lambda old: [replace(record, seq=seq) for seq, record in enumerate([old[0], *old[2:]])])


def leaves_a_gap(cell: Cell) -> None:
    records(cell, lambda old: [*old[:-1], replace(old[-1], seq=99)])


def records_another_value(cell: Cell) -> None:
    records(cell, lambda old: [replace(each, output='"BOB"') if each.key == "flaky" else each for each in old])


def forgets_a_step(cell: Cell) -> None:
    records(cell, lambda old: [each for each in old if each.key != "rest"])


def delivers_an_event_twice(cell: Cell) -> None:
    cell.after = Snapshot(cell.after.runs, (cell.after.events or 0) + 1)


def starts_a_run_twice(cell: Cell) -> None:
    put(cell, replace(child(cell), id="another", parent=None))


def starts_a_child_twice(cell: Cell) -> None:
    put(cell, replace(child(cell), id="another"))


def changes_a_key(cell: Cell) -> None:
    cell.ledger.entries = [
        replace(each, idempotency_key="new") if each.life and each.key == "flaky" else each for each in cell.ledger
    ]


def shares_a_key(cell: Cell) -> None:
    cell.ledger.entries = [replace(each, idempotency_key="same") for each in cell.ledger]


def gives_another_type(cell: Cell) -> None:
    cell.value = [cell.value]


def gives_an_unequal_value(cell: Cell) -> None:
    cell.value = "something else"


def does_not_end(cell: Cell) -> None:
    cell.trouble = "the run did not end"


def leaves_a_run_live(cell: Cell) -> None:
    put(cell, replace(child(cell), status=RunStatus.RUNNING))


def ends_twice(cell: Cell) -> None:
    records(cell, lambda old: [*old, replace(old[-1], seq=len(old))])


TAMPERED: list[tuple[str, Callable[[Cell], None]]] = [
    ("L1", another_result),
    ("L1", another_world),
    ("L2", runs_after_its_record),
    ("L3", starts_too_often),
    ("L4", loses_a_record),
    ("L4", leaves_a_gap),
    ("L5", records_another_value),
    ("L5", forgets_a_step),
    ("L7", delivers_an_event_twice),
    ("L7", starts_a_run_twice),
    ("L8", starts_a_child_twice),
    ("L9", changes_a_key),
    ("L9", shares_a_key),
    ("L10", gives_another_type),
    ("L10", gives_an_unequal_value),
    ("L12", does_not_end),
    ("L12", leaves_a_run_live),
    ("L13", ends_twice),
]


@pytest.mark.parametrize(("law", "tamper"), TAMPERED, ids=[f"{law}-{each.__name__}" for law, each in TAMPERED])
async def test_the_law_fires(law: str, tamper: Callable[[Cell], None]) -> None:
    calm, cell = await run_cell(scenario()), await run_cell(scenario(), CRASH)
    assert cell.fired
    assert broken_laws(calm, cell) == []
    tamper(cell)
    found = broken_laws(calm, cell)
    assert law in {violation.law for violation in found}
    assert all(violation.found and violation.meaning for violation in found)


@pytest.mark.parametrize("change", ["lost", "foreign", "unanswered"])
async def test_a_transcript_with_a_wrong_result_is_caught(change: str) -> None:
    calm = await run_cell(Scenario(target=agents.keyed, data="refund", engine=find_engine("memory")))
    assert broken_laws(calm, calm) == []
    assert isinstance(calm.value, AgentResult)
    messages = list(calm.value.messages)
    place = next(number for number, each in enumerate(messages) if isinstance(each, ToolResultMessage))
    if change == "lost":
        del messages[place]
    elif change == "foreign":
        messages[place] = messages[place].model_copy(update={"call_id": "another"})
    else:
        messages.insert(place, messages[place])
    calm.value = calm.value.model_copy().with_messages(messages)
    assert "L6" in {violation.law for violation in broken_laws(calm, calm)}


async def test_no_law_is_left_untested() -> None:
    assert {law for law, _ in TAMPERED} | {"L6"} == set(LAWS)
