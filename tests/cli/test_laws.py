"""Each law, broken on purpose: the evidence of a real demo is tampered with, and must be seen through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from durably.cli.corpus import Corpus, Root
from durably.cli.demo import run_demo
from durably.cli.job import Job
from durably.cli.kills import plan_kills
from durably.cli.laws import Evidence, check_laws
from durably.cli.screen import SilentScreen


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("laws")
    (folder / "files").mkdir()
    (folder / "files" / "a.py").write_text("def f():\n    return 'TODO'\n")
    job = Job(label="a", files=folder / "files", folder=folder, kills=plan_kills(3, scripted=True))
    demo = run_demo(job, Corpus([Root(path=Path(folder, "files"))]), SilentScreen())
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
    return replace(evidence, crashes=evidence.crashes[:-1])


def other_kill(evidence: Evidence) -> Evidence:
    first = replace(evidence.crashes[0], kill=("after_effect", "think"))
    return replace(evidence, crashes=[first, *evidence.crashes[1:]])


def started_after_commit(evidence: Evidence) -> Evidence:
    again = evidence.starts[0].model_copy(update={"process": 4, "attempt": 2})
    return replace(evidence, starts=[*evidence.starts, again])


def started_twice_in_one_process(evidence: Evidence) -> Evidence:
    again = evidence.starts[-1].model_copy(update={"attempt": 2})
    return replace(evidence, starts=[*evidence.starts, again])


def start_missing(evidence: Evidence) -> Evidence:
    return replace(evidence, starts=evidence.starts[1:])


def started_without_a_reason(evidence: Evidence) -> Evidence:
    calm = [replace(crash, in_flight=frozenset()) for crash in evidence.crashes]
    return replace(evidence, crashes=calm)


def key_changed(evidence: Evidence) -> Evidence:
    step = evidence.crashes[-1].kill
    assert step is not None
    changed = [s.model_copy(update={"key": str(n)}) if s.step == step[1] else s for n, s in enumerate(evidence.starts)]
    return replace(evidence, starts=changed)


def key_shared(evidence: Evidence) -> Evidence:
    shared = evidence.starts[1].model_copy(update={"key": evidence.starts[0].key})
    return replace(evidence, starts=[evidence.starts[0], shared, *evidence.starts[2:]])


def attempt_repeated(evidence: Evidence) -> Evidence:
    return replace(evidence, starts=[start.model_copy(update={"attempt": 1}) for start in evidence.starts])


def finding_twice(evidence: Evidence) -> Evidence:
    report = [*evidence.outcome.report, evidence.outcome.report[0]]
    return replace(evidence, outcome=replace(evidence.outcome, report=report))


def finding_lost(evidence: Evidence) -> Evidence:
    return replace(evidence, outcome=replace(evidence.outcome, report=evidence.outcome.report[1:]))


def history_rewritten(evidence: Evidence) -> Evidence:
    journal = [replace(record, took=record.took + 1) for record in evidence.outcome.journal]
    return replace(evidence, outcome=replace(evidence.outcome, journal=journal))


def replay_differs(evidence: Evidence) -> Evidence:
    return replace(evidence, replayed=None)


def result_differs(evidence: Evidence) -> Evidence:
    assert evidence.straight is not None
    other = evidence.straight.result.model_copy(update={"text": "something else"})
    return replace(evidence, straight=replace(evidence.straight, result=other))


def record_differs(evidence: Evidence) -> Evidence:
    assert evidence.straight is not None
    journal = [replace(record, output='"other"') for record in evidence.straight.journal]
    return replace(evidence, straight=replace(evidence.straight, journal=journal))


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
    verdict = check_laws(replace(evidence, straight=None))[-1]
    assert verdict.held
    assert verdict.skipped
    assert "not compared" in verdict.proof
