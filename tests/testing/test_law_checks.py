"""Each law, on a recovered run that was tampered with: a law that never fires proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from durably.core import AgentResult
from durably.core.history import History
from durably.core.messages import ToolResultMessage
from durably.core.run_view import RunStatus
from durably.testing.crash.engines import find_engine
from durably.testing.crash.experiment import Experiment, run_experiment
from durably.testing.crash.faults import Crash
from durably.testing.crash.law_checks import CHECKS, broken_laws
from durably.testing.crash.scenario import Scenario
from durably.testing.laws import LAWS
from durably.testing.ledger import Entry
from durably.testing.snapshot import RunLog, Snapshot
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


def root(experiment: Experiment) -> RunLog:
    return experiment.after.runs[experiment.run_id]


def put(experiment: Experiment, log: RunLog) -> None:
    experiment.after = Snapshot({**experiment.after.runs, log.id: log}, experiment.after.events)


def records(experiment: Experiment, change: Callable[[list[Any]], list[Any]]) -> None:
    put(experiment, replace(root(experiment), history=History(change(list(root(experiment).history)))))


def child(experiment: Experiment) -> RunLog:
    return next(log for log in experiment.after.runs.values() if log.parent)


def another_result(experiment: Experiment) -> None:
    experiment.output = '"something else"'


def another_world(experiment: Experiment) -> None:
    experiment.state = "[2]"


def runs_after_its_record(experiment: Experiment) -> None:
    experiment.ledger.entries.append(Entry("started", "every-kind", experiment.run_id, "flaky", 1, 3, "k"))


def starts_too_often(experiment: Experiment) -> None:
    place = next(number for number, entry in enumerate(experiment.ledger.entries) if entry.key == "flaky")
    experiment.ledger.entries[place:place] = [experiment.ledger.entries[place]] * 3


def loses_a_record(experiment: Experiment) -> None:
    records(experiment, lambda old: [replace(record, seq=seq) for seq, record in enumerate([old[0], *old[2:]])])


def leaves_a_gap(experiment: Experiment) -> None:
    records(experiment, lambda old: [*old[:-1], replace(old[-1], seq=99)])


def settles_a_step_twice(experiment: Experiment) -> None:
    def twice(old: list[Any]) -> list[Any]:
        flaky = next(each for each in old if each.key == "flaky" and each.final)
        return [replace(each, seq=seq) for seq, each in enumerate([*old[:-1], flaky, old[-1]])]

    records(experiment, twice)


def records_another_value(experiment: Experiment) -> None:
    records(experiment, lambda old: [replace(each, output='"BOB"') if each.key == "flaky" else each for each in old])


def forgets_a_step(experiment: Experiment) -> None:
    records(experiment, lambda old: [each for each in old if each.key != "rest"])


def delivers_an_event_twice(experiment: Experiment) -> None:
    experiment.after = Snapshot(experiment.after.runs, (experiment.after.events or 0) + 1)


def starts_a_run_twice(experiment: Experiment) -> None:
    put(experiment, replace(child(experiment), id="another", parent=None))


def starts_a_child_twice(experiment: Experiment) -> None:
    put(experiment, replace(child(experiment), id="another"))


def changes_a_key(experiment: Experiment) -> None:
    experiment.ledger.entries = [
        replace(each, idempotency_key="new") if each.life and each.key == "flaky" else each
        for each in experiment.ledger
    ]


def shares_a_key(experiment: Experiment) -> None:
    experiment.ledger.entries = [replace(each, idempotency_key="same") for each in experiment.ledger]


def repeats_an_attempt(experiment: Experiment) -> None:
    experiment.ledger.entries = [replace(each, attempt=min(each.attempt, 1)) for each in experiment.ledger]


def gives_another_type(experiment: Experiment) -> None:
    experiment.value = [experiment.value]


def gives_an_unequal_value(experiment: Experiment) -> None:
    experiment.value = "something else"


def does_not_end(experiment: Experiment) -> None:
    experiment.trouble = "the run did not end"


def leaves_a_run_live(experiment: Experiment) -> None:
    put(experiment, replace(child(experiment), status=RunStatus.RUNNING))


def ends_twice(experiment: Experiment) -> None:
    records(experiment, lambda old: [*old, replace(old[-1], seq=len(old))])


TAMPERED: list[tuple[str, Callable[[Experiment], None]]] = [
    ("L1", another_result),
    ("L1", another_world),
    ("L2", runs_after_its_record),
    ("L3", starts_too_often),
    ("L4", loses_a_record),
    ("L4", leaves_a_gap),
    ("L4", settles_a_step_twice),
    ("L5", records_another_value),
    ("L5", forgets_a_step),
    ("L7", delivers_an_event_twice),
    ("L7", starts_a_run_twice),
    ("L8", starts_a_child_twice),
    ("L9", changes_a_key),
    ("L9", shares_a_key),
    ("L9", repeats_an_attempt),
    ("L10", gives_another_type),
    ("L10", gives_an_unequal_value),
    ("L12", does_not_end),
    ("L12", leaves_a_run_live),
    ("L13", ends_twice),
]


@pytest.mark.parametrize(("law", "tamper"), TAMPERED, ids=[f"{law}-{each.__name__}" for law, each in TAMPERED])
async def test_the_law_fires(law: str, tamper: Callable[[Experiment], None]) -> None:
    baseline, experiment = await run_experiment(scenario()), await run_experiment(scenario(), CRASH)
    assert experiment.fired
    assert broken_laws(baseline, experiment) == []
    tamper(experiment)
    found = broken_laws(baseline, experiment)
    assert law in {violation.law for violation in found}
    assert all(violation.found and violation.meaning for violation in found)


async def test_a_run_that_was_not_brought_to_its_end_has_not_come_to_another_result() -> None:
    baseline, experiment = await run_experiment(scenario()), await run_experiment(scenario(), CRASH)
    does_not_end(experiment)
    records(experiment, lambda old: old[:-1])
    put(experiment, replace(root(experiment), status=RunStatus.RUNNING))
    experiment.output = experiment.value = experiment.state = None
    assert [violation.law for violation in broken_laws(baseline, experiment)] == ["L12"]
    starts_too_often(experiment)
    assert {violation.law for violation in broken_laws(baseline, experiment)} == {"L3", "L9", "L12"}


def forgets_attempts(experiment: Experiment) -> None:
    """As an engine does that keeps only the last attempt of a step that a crash interrupted."""
    experiment.forgets_attempts = True
    records(experiment, lambda old: [each for each in old if each.status != "retrying"])
    records(experiment, lambda old: [replace(each, seq=seq) for seq, each in enumerate(old)])


async def test_a_failed_attempt_that_an_engine_forgot_is_accounted_for_and_no_other_start() -> None:
    baseline, experiment = await run_experiment(scenario()), await run_experiment(scenario(), CRASH)
    experiment.before.clear()  # the engine's records cannot be read at the crash
    forgets_attempts(experiment)
    assert broken_laws(baseline, experiment) == []
    starts_too_often(experiment)
    assert {violation.law for violation in broken_laws(baseline, experiment)} == {"L3", "L9"}
    experiment.forgets_attempts = False
    experiment.ledger.entries = list(baseline.ledger)
    assert "L3" in {violation.law for violation in broken_laws(baseline, experiment)}


@pytest.mark.parametrize("change", ["lost", "foreign", "unanswered"])
async def test_a_transcript_with_a_wrong_result_is_caught(change: str) -> None:
    baseline = await run_experiment(Scenario(target=agents.keyed, data="refund", engine=find_engine("memory")))
    assert broken_laws(baseline, baseline) == []
    assert isinstance(baseline.value, AgentResult)
    messages = list(baseline.value.messages)
    place = next(number for number, each in enumerate(messages) if isinstance(each, ToolResultMessage))
    if change == "lost":
        del messages[place]
    elif change == "foreign":
        messages[place] = messages[place].model_copy(update={"call_id": "another"})
    else:
        messages.insert(place, messages[place])
    baseline.value = baseline.value.model_copy().with_messages(messages)
    assert "L6" in {violation.law for violation in broken_laws(baseline, baseline)}


async def test_no_law_is_left_untested() -> None:
    assert {law for law, _ in TAMPERED} | {"L6"} == set(CHECKS)
    assert set(CHECKS) | {"L11", "L14"} == set(LAWS)
