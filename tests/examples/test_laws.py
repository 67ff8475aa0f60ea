"""Each law, broken on purpose: the evidence of a real demo is tampered with, and must be seen through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from durably.core.history import History, StepRecord
from durably.core.steps import Point
from durably.testing import Entry
from durably.testing.snapshot import Snapshot
from examples.audit.corpus import Corpus, Root
from examples.audit.demo.job import RUN_ID, Job
from examples.audit.demo.kill_plan import plan_kills
from examples.audit.demo.laws import Evidence, check_laws
from examples.audit.demo.run import run_demo
from examples.audit.demo.screen import SilentScreen


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("laws")
    (folder / "files").mkdir()
    (folder / "files" / "a.py").write_text("def f():\n    return 'TODO'\n")
    job = Job(label="a", files=folder / "files", folder=folder)
    demo = run_demo(job, Corpus([Root(path=Path(folder, "files"))]), plan_kills(3, scripted=True), SilentScreen())
    assert demo.evidence is not None
    return demo.evidence


def broken(evidence: Evidence) -> list[str]:
    return [verdict.law for verdict in check_laws(evidence) if not verdict.held]


def test_a_good_run_holds_every_law(evidence: Evidence) -> None:
    verdicts = check_laws(evidence)
    assert [verdict.broken for verdict in verdicts] == [[]] * 8
    assert not any(verdict.skipped for verdict in verdicts)
    assert all(verdict.proof for verdict in verdicts)


Tamper = Callable[[Evidence], Evidence]


def without_a_kill(evidence: Evidence) -> Evidence:
    last = [entry for entry in evidence.ledger if entry.kind == "crash"][-1]
    return replace(
        evidence, deaths=evidence.deaths[:-1], ledger=[entry for entry in evidence.ledger if entry is not last]
    )


def other_kill(evidence: Evidence) -> Evidence:
    first = replace(evidence.deaths[0], crash=Point("after_effect", "audit", RUN_ID, "think"))
    return replace(evidence, deaths=[first, *evidence.deaths[1:]])


def with_starts(evidence: Evidence, change: Callable[[int, Entry], Entry | None]) -> Evidence:
    """The evidence with other starts; what ``change`` gives ``None`` for is gone."""
    numbers = {id(start): number for number, start in enumerate(evidence.starts)}
    changed = [change(numbers[id(each)], each) if each.kind == "started" else each for each in evidence.ledger]
    return replace(evidence, ledger=[each for each in changed if each is not None])


def started_after_commit(evidence: Evidence) -> Evidence:
    again = replace(evidence.starts[0], life=3, attempt=2)
    return replace(evidence, ledger=[*evidence.ledger, again])


def started_twice_in_one_process(evidence: Evidence) -> Evidence:
    again = replace(evidence.starts[-1], attempt=2)
    return replace(evidence, ledger=[*evidence.ledger, again])


def start_missing(evidence: Evidence) -> Evidence:
    return with_starts(evidence, lambda number, start: start if number else None)


def started_without_a_reason(evidence: Evidence) -> Evidence:
    return replace(evidence, ledger=[entry for entry in evidence.ledger if entry.kind != "crash"])


def key_changed(evidence: Evidence) -> Evidence:
    crash = evidence.deaths[-1].crash
    assert crash is not None
    step = crash.key
    return with_starts(
        evidence, lambda number, each: replace(each, idempotency_key=str(number)) if each.key == step else each
    )


def key_shared(evidence: Evidence) -> Evidence:
    other = evidence.starts[0].idempotency_key
    return with_starts(evidence, lambda number, start: replace(start, idempotency_key=other) if number == 1 else start)


def attempt_repeated(evidence: Evidence) -> Evidence:
    return with_starts(evidence, lambda _, start: replace(start, attempt=1))


def finding_twice(evidence: Evidence) -> Evidence:
    report = [*evidence.outcome.report, evidence.outcome.report[0]]
    return replace(evidence, outcome=replace(evidence.outcome, report=report))


def finding_lost(evidence: Evidence) -> Evidence:
    return replace(evidence, outcome=replace(evidence.outcome, report=evidence.outcome.report[1:]))


def with_records(after: Snapshot, change: Callable[[StepRecord], StepRecord]) -> Snapshot:
    """The same store with other records."""
    log = after.runs[RUN_ID]
    history = History([change(record) for record in log.history])
    return replace(after, runs={RUN_ID: replace(log, history=history)})


def history_rewritten(evidence: Evidence) -> Evidence:
    after = with_records(evidence.outcome.after, lambda record: replace(record, took=record.took + 1))
    return replace(evidence, outcome=replace(evidence.outcome, after=after))


def replay_differs(evidence: Evidence) -> Evidence:
    return replace(evidence, replayed=None)


def result_differs(evidence: Evidence) -> Evidence:
    assert evidence.uninterrupted is not None
    other = evidence.uninterrupted.result.model_copy(update={"text": "something else"})
    return replace(evidence, uninterrupted=replace(evidence.uninterrupted, result=other))


def record_differs(evidence: Evidence) -> Evidence:
    assert evidence.uninterrupted is not None
    after = with_records(evidence.uninterrupted.after, lambda record: replace(record, output='"other"'))
    return replace(evidence, uninterrupted=replace(evidence.uninterrupted, after=after))


ALL_AS = "All as in a run nobody killed"
ONCE = "Each finding is in the report exactly once"
KILLS = "Every planned SIGKILL came about"
COMMIT = "No body started after its commit"
STARTS = "Starts of a step <= 1 + crashes in its window + retries"
KEYS = "One idempotency key a step, one attempt number a start"


@pytest.mark.parametrize(
    ("tamper", "laws"),
    [
        (without_a_kill, [KILLS, STARTS]),
        (other_kill, [KILLS]),
        (started_after_commit, [COMMIT, STARTS]),
        (started_twice_in_one_process, [COMMIT, STARTS]),
        (start_missing, [COMMIT]),
        (started_without_a_reason, [STARTS]),
        (key_changed, [KEYS]),
        (key_shared, [KEYS]),
        (attempt_repeated, [KEYS]),
        (finding_twice, [ONCE, ALL_AS]),
        (finding_lost, [ONCE, ALL_AS]),
        (history_rewritten, ["The journal only ever grew"]),
        (replay_differs, ["The records alone give the result again"]),
        (result_differs, [ALL_AS]),
        (record_differs, [ALL_AS]),
    ],
)
def test_a_broken_law_is_found(evidence: Evidence, tamper: Tamper, laws: list[str]) -> None:
    assert broken(tamper(evidence)) == laws


def test_without_a_run_to_compare_with_it_says_so(evidence: Evidence) -> None:
    verdict = check_laws(replace(evidence, uninterrupted=None))[-1]
    assert verdict.held
    assert verdict.skipped
    assert "not compared" in verdict.proof
