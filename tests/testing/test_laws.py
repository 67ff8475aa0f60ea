"""Each law on plain data: a case that keeps it, and a case that breaks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from durably.core.history import History, StepRecord
from durably.core.ids import derive_id
from durably.core.run_view import RunStatus
from durably.testing import laws
from durably.testing.laws import BrokenLawError, Outcome, Violation
from durably.testing.ledger import EffectLedger, Entry, EntryKind, Repeated, repeated_step
from durably.testing.snapshot import RunLog, Snapshot

RUN = "r"
KINDS: dict[str, EntryKind] = {kind: kind for kind in get_args(EntryKind)}


def record(key: str, status: Any = "completed", kind: Any = "step", **more: Any) -> StepRecord:
    return StepRecord(RUN, 0, key, kind, status, **more)


def log(*records: StepRecord, id: str = RUN, **more: Any) -> RunLog:
    made = History(replace(each, seq=seq, run_id=id) for seq, each in enumerate(records))
    return RunLog(**{"id": id, "function": "f", "status": RunStatus.COMPLETED, "parent": None, "history": made, **more})


def snapshot(*logs: RunLog) -> Snapshot:
    return Snapshot({each.id: each for each in logs})


FIRST = record("", "started", "run", name="f")
LAST = record("", "completed", "run", name="f", output="1")


def entries(*said: str) -> list[Entry]:
    """Entries from words: ``"started a"``, ``"committed a"``, ``"crash"``."""
    made: list[Entry] = []
    for word in said:
        kind, _, key = word.partition(" ")
        attempt = 1 + sum(1 for each in made if (each.kind, each.key) == (kind, key))
        made.append(Entry(KINDS[kind], "f", RUN, key, attempt=attempt, idempotency_key=f"key of {key}"))
    return made


def broken(violations: Iterable[Violation]) -> list[str]:
    found = list(violations)
    assert all(each.found and each.meaning for each in found)
    return [each.law for each in found]


DONE = Outcome(status="completed", output='"paid"', state="[1]")
FAILED = Outcome(status="failed", error={"type": "ToolError", "message": "no"})


def test_the_same_outcome() -> None:
    assert broken(laws.same_outcome(DONE, DONE)) == []
    assert broken(laws.same_outcome(FAILED, replace(FAILED, error={"type": "ToolError", "message": "other"}))) == []
    assert broken(laws.same_outcome(Outcome(status="failed"), FAILED)) == []  # any error was expected


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(DONE, output='"lost"'), 'the run came to "lost" instead of "paid"'),
        (replace(DONE, state="[1, 1]"), "the world differs from the run without a crash: [1, 1] instead of [1]"),
        (FAILED, "the run came to the error ToolError: no instead of"),
        (
            Outcome(status="failed", error={"type": "NonDeterminismError", "asked": "b", "recorded": "a", "step": "a"}),
            "after the crash the code asked for b, where the run had recorded a",
        ),
    ],
)
def test_another_outcome(found: Outcome, said: str) -> None:
    violations = list(laws.same_outcome(DONE, replace(found, state=found.state or "[1]")))
    assert broken(violations) == ["L1"]
    assert said in violations[0].found


def test_another_error_is_another_outcome() -> None:
    assert broken(laws.same_outcome(FAILED, replace(FAILED, error={"type": "ModelError", "message": "no"}))) == ["L1"]


@pytest.mark.parametrize(("used_key", "advice"), [(False, "Pass current_step()"), (True, "ignores it")])
def test_the_step_to_blame_decides_the_advice(used_key: bool, advice: str) -> None:
    (violation,) = laws.same_outcome(DONE, replace(DONE, state="[1, 1]"), Repeated("pay", 2, used_key))
    assert violation.step == "pay"
    assert violation.found.startswith("step 'pay' had its effect twice and ")
    assert advice in violation.meaning


def test_effects() -> None:
    assert broken(laws.same_effects({"a": 1}, {"a": 1})) == []
    assert broken(laws.same_effects({"a": 1}, {"a": 2}, at_least_once=True)) == []
    assert broken(laws.same_effects({"a": 1}, {"a": 2})) == ["L1"]
    assert broken(laws.same_effects({"a": 1}, {}, at_least_once=True)) == ["L1"]
    assert broken(laws.same_effects({}, {"a": 1}, at_least_once=True)) == ["L1"]  # nobody asked for it


def test_no_start_after_commit() -> None:
    assert broken(laws.no_start_after_commit(entries("started a", "crash", "started a", "committed a"))) == []
    assert broken(laws.no_start_after_commit(entries("started a", "committed a", "crash", "started a"))) == ["L2"]
    assert broken(laws.no_start_after_commit(entries("committed a", "started a", "started a"))) == ["L2"]  # once a step


def test_starts_that_a_crash_accounts_for() -> None:
    after = snapshot(log(FIRST, record("a"), LAST))
    assert broken(laws.limited_starts(entries("started a", "crash", "started a"), after)) == []
    assert broken(laws.limited_starts(entries("started a", "started a"), after)) == ["L3"]
    assert broken(laws.limited_starts(entries("started a", "started a"), after, spare=1)) == []
    outside_its_window = entries("crash", "started a", "committed a", "crash", "started a")
    assert broken(laws.limited_starts(outside_its_window, after)) == ["L3"]


def test_starts_that_a_retry_accounts_for() -> None:
    after = snapshot(log(FIRST, record("a", "retrying"), record("a"), LAST))
    assert broken(laws.limited_starts(entries("started a", "started a"), after)) == []


def test_starts_that_a_run_without_a_crash_accounts_for_where_records_do_not_tell() -> None:
    after = snapshot(log(FIRST, record("a"), LAST))
    without_crash = laws.most_starts(entries("started a", "started a"))
    assert without_crash == {("f", "a"): 2}

    def judged(*said: str) -> list[str]:
        return broken(laws.limited_starts(entries(*said), after, unrecorded=without_crash))

    assert judged("started a", "started a", "crash", "started a") == []
    assert judged("started a", "started a", "crash", "started a", "started a") == ["L3"]
    assert judged("started a", "started a", "started a") == ["L3"]
    assert judged("started b", "started b") == ["L3"]  # it never failed without a crash


def test_what_the_records_tell_is_not_counted_twice() -> None:
    after = snapshot(log(FIRST, record("a", "retrying"), record("a"), LAST))
    without_crash = {("f", "a"): 2}
    assert broken(laws.limited_starts(entries("started a", "started a"), after, unrecorded=without_crash)) == []
    thrice = entries("started a", "started a", "started a")
    assert broken(laws.limited_starts(thrice, after, unrecorded=without_crash)) == ["L3"]


def test_a_repeat_that_the_engine_numbered_is_accounted_for_where_it_keeps_no_more() -> None:
    after = snapshot(log(FIRST, replace(record("a"), attempt=2), LAST))
    twice = entries("started a", "started a")
    assert broken(laws.limited_starts(twice, after, unrecorded={("f", "a"): 1})) == []
    assert broken(laws.limited_starts([*twice, *twice], after, unrecorded={("f", "a"): 1})) == ["L3"]
    assert broken(laws.limited_starts(twice, after)) == ["L3"], "other engines record why"
    once = snapshot(log(FIRST, record("a", "started"), replace(record("a", "failed"), attempt=2), LAST))
    assert broken(laws.limited_starts(twice, once, unrecorded={("f", "a"): 1})) == ["L3"]


def test_an_at_most_once_body_starts_once_whatever_happens() -> None:
    after = snapshot(log(FIRST, record("a", "started"), record("a", "failed"), LAST))
    assert broken(laws.limited_starts(entries("started a", "crash", "started a"), after)) == ["L3"]


def test_keys_and_attempts() -> None:
    good = entries("started a", "crash", "started a", "started b")
    assert broken(laws.one_key_per_step(good)) == []
    assert broken(laws.distinct_attempts(good)) == []
    assert broken(laws.one_key_per_step([*good, replace(good[0], idempotency_key="other")])) == ["L9"]
    assert broken(laws.one_key_per_step([*good, replace(good[0], key="c")])) == ["L9"]
    assert broken(laws.distinct_attempts([*good, good[0]])) == ["L9"]


def test_changed_code() -> None:
    noticed = Outcome(status="failed", error={"type": "NonDeterminismError"})
    lost = replace(DONE, output='"lost"')
    assert broken(laws.change_is_noticed(DONE, DONE, ["a"], change="rename a")) == []  # it made no difference
    assert broken(laws.change_is_noticed(DONE, noticed, [], change="rename a")) == []
    assert broken(laws.change_is_noticed(DONE, lost, [], change="rename a")) == ["L11"]
    (late,) = laws.change_is_noticed(DONE, noticed, ["pay"], change="rename a", step="a")
    assert (late.law, late.step, late.found) == ("L11", "a", "rename a was noticed only after 'pay' had run")


def test_bodies_that_the_ledger_never_saw() -> None:
    after = snapshot(log(FIRST, record("a"), record("b"), record("nap", kind="sleep"), LAST))
    assert laws.unseen_bodies(entries("started a"), after) == ["b"]


def test_the_journal_only_grows() -> None:
    before, after = log(FIRST, record("a")), log(FIRST, record("a"), record("b"), LAST)
    assert broken(laws.append_only(snapshot(before), snapshot(after))) == []
    changed = log(FIRST, record("a", output="2"), LAST)
    assert broken(laws.append_only(snapshot(before), snapshot(changed))) == ["L4"]
    assert broken(laws.append_only(snapshot(before), snapshot(log(FIRST)))) == ["L4"]
    assert broken(laws.append_only(snapshot(before), snapshot())) == ["L4"]


def test_a_row_without_gaps_in_which_each_step_is_settled_once() -> None:
    good = log(FIRST, record("a", "retrying"), record("a"), LAST)
    assert broken(laws.settled_once(snapshot(good))) == []
    assert broken(laws.settled_once(snapshot(log(FIRST, record("a"), record("a"), LAST)))) == ["L4"]
    gap = replace(good, history=History(replace(each, seq=each.seq + 1) for each in good.history))
    assert broken(laws.settled_once(snapshot(gap))) == ["L4"]


def test_the_same_records() -> None:
    expected = log(FIRST, record("a", output="1", at=5.0), LAST).history
    assert broken(laws.same_records(expected, log(FIRST, record("a", output="1", attempt=2), LAST).history)) == []
    (violation,) = laws.same_records(expected, log(FIRST, record("a", output="2"), LAST).history)
    assert (violation.law, violation.step) == ("L5", "a")
    assert violation.difference is not None
    assert violation.difference.field == "output"


def test_a_run_ends_once() -> None:
    live = log(FIRST, id="live", status=RunStatus.RUNNING)
    assert broken(laws.ends_once(snapshot(log(FIRST, LAST), live))) == []
    assert broken(laws.ends_once(snapshot(replace(live, status=RunStatus.SKIPPED)))) == []
    assert broken(laws.ends_once(snapshot(replace(live, status=RunStatus.FAILED)))) == ["L13"]
    assert broken(laws.ends_once(snapshot(log(FIRST, LAST, LAST)))) == ["L13"]
    assert broken(laws.ends_once(snapshot(log(FIRST, LAST, record("a"))))) == ["L13"]


def test_events() -> None:
    assert broken(laws.same_event_count(2, 2)) == []
    assert broken(laws.same_event_count(2, 3)) == ["L7"]
    assert broken(laws.each_event_once({"a", "b"}, ["a", "b"])) == []
    assert broken(laws.each_event_once({"a"}, ["a", "a"])) == ["L7"]
    assert broken(laws.each_event_once({"a", "b"}, ["a", "c"])) == ["L7", "L7"]
    one, other = log(FIRST, id="1"), log(FIRST, id="2")
    assert broken(laws.same_started_runs([one, other], [other, one])) == []
    assert broken(laws.same_started_runs([one], [other])) == ["L7"]


def test_children() -> None:
    parent = log(FIRST, record("ask", kind="invoke"), LAST)
    child = log(FIRST, LAST, id=derive_id("child", RUN, "ask"), parent=RUN)
    assert broken(laws.children_match_their_calls(snapshot(parent, child))) == []
    stray = replace(child, id="stray")
    assert broken(laws.children_match_their_calls(snapshot(parent, child, stray))) == ["L8"]
    assert broken(laws.same_number_of_children(1, snapshot(parent, child))) == []
    assert broken(laws.same_number_of_children(0, snapshot(parent, child))) == ["L8"]


def test_values() -> None:
    assert broken(laws.same_value((1, 2), (1, 2))) == []
    assert broken(laws.same_value((1, 2), [1, 2])) == ["L10"]
    assert broken(laws.same_value((1, 2), (1, 3))) == ["L10"]


def test_ends() -> None:
    live = log(FIRST, id="live", status=RunStatus.RUNNING)
    assert broken(laws.every_run_ends(snapshot(log(FIRST, LAST)))) == []
    assert broken(laws.every_run_ends(snapshot(log(FIRST, LAST), live))) == ["L12"]
    assert broken(laws.every_run_ends(snapshot(live), live=1)) == []


def test_secrets() -> None:
    after = snapshot(log(FIRST, record("a", output='"hunter22"'), LAST))
    assert broken(laws.no_secrets(after, ["another"])) == []
    (violation,) = laws.no_secrets(after, ["another", "hunter22"])
    assert violation.law == "L14"
    assert "hunter22" not in str(violation)


def test_violations_are_raised_together() -> None:
    laws.raise_violations([])
    two = [*laws.same_value(1, 2), *laws.same_event_count(1, 2)]
    with pytest.raises(BrokenLawError, match=r"L10: .*\nL7: 2 events were delivered instead of 1") as caught:
        laws.raise_violations(two)
    assert list(caught.value.violations) == two


def test_the_step_that_did_harm_by_being_repeated() -> None:
    assert repeated_step(entries("ended a"), entries("ended a")) is None
    usual = entries("ended think", "ended pay")
    found = entries("ended think", "ended pay", "ended think", "ended pay")
    assert repeated_step(usual, found) == Repeated("pay", 2, used_key=False)


def test_the_docs_list_the_laws_in_the_same_words() -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    for law, text in laws.LAWS.items():
        assert f"| {law} | {text.rstrip('.')}" in page


def test_a_ledger_is_what_the_laws_take() -> None:
    ledger = EffectLedger()
    assert broken(laws.no_start_after_commit(ledger)) == []
    assert broken(laws.limited_starts(ledger.entries, snapshot())) == []
