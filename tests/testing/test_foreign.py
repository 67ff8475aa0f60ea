"""The crash matrix of agents of other libraries: right ones stay green, and each law has an agent that breaks it."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from durably.core import DefinitionError
from durably.testing import NotDeterministicError, PointNotReachedError
from durably.testing.crash.report import Report
from durably.testing.foreign import foreign_matrix, inside, model_asked, watched
from tests.benchmarks.foreign import plain_loop
from tests.benchmarks.foreign.world import mailed, state
from tests.testing import foreign_agents as agents

POINTS = ("before_body", "in_body", "after_effect", "after_commit")


def crash(resume: Any, **options: Any) -> Report:
    return foreign_matrix(agents.start, resume, state=state, events=mailed, **options)


def broken(report: Report) -> dict[str, set[str]]:
    return {cell.label: {each.law for each in cell.violations} for cell in report.failures}


def test_an_agent_that_keeps_what_it_did_survives_a_crash_at_each_point_of_each_tool() -> None:
    report = crash(agents.resume)
    assert report.ok, report
    labels = [cell.label for cell in report.cells[1:]]
    assert labels == [f"{tool}(7)/{point}" for tool in ("refund", "send_mail") for point in POINTS]
    assert [cell.outcome for cell in report.cells[1:]].count("recovered") >= 6


def test_a_second_crash_is_put_into_the_recovery() -> None:
    report = crash(agents.resume, crashes=2, points="refund*/*")
    assert report.ok, report
    assert "refund(7)/after_effect, refund(7)/in_body" in [cell.label for cell in report.cells]


def test_a_turn_that_is_stored_as_a_whole_is_paid_for_twice() -> None:
    report = foreign_matrix(plain_loop.start, plain_loop.resume, name="loop", state=state, events=mailed)
    assert broken(report) == {
        "refund(7)/after_effect": {"L1"},
        "send_mail(7)/before_body": {"L1"},
        "send_mail(7)/in_body": {"L1"},
        "send_mail(7)/after_effect": {"L1", "L7"},
    }
    text = str(report)
    assert "refund(7) had its effect twice" in text
    assert "refund(7) shown to the model" in text
    assert "reproduce: foreign_matrix(..., repro='refund(7)/after_effect')" in text
    page = report.to_html()
    assert "Crash matrix of loop" in page
    assert page.count('<button class="failed"') == 4
    again = foreign_matrix(plain_loop.start, plain_loop.resume, state=state, repro="refund(7)/after_effect")
    assert [(cell.at, cell.outcome) for cell in again.cells[1:]] == [("after_effect", "failed")]


def test_a_tool_that_runs_again_after_its_result_was_shown_breaks_l3() -> None:
    report = crash(agents.begin_again, points="refund*/after_commit")
    assert broken(report) == {"refund(7)/after_commit": {"L3"}}
    assert "the agent had shown" in str(report).lower()


def test_a_call_without_a_result_breaks_l6() -> None:
    report = crash(agents.ask_at_once, points="refund*/in_body")
    assert "L6" in broken(report)["refund(7)/in_body"]
    assert "a call without a result: call-1" in str(report)


def test_a_message_that_is_sent_again_breaks_l7() -> None:
    report = crash(agents.send_again, points="send_mail*/after_effect")
    assert "L7" in broken(report)["send_mail(7)/after_effect"]


def test_a_run_that_does_not_end_breaks_l12() -> None:
    report = crash(agents.give_up, points="refund*/in_body")
    assert "L12" in broken(report)["refund(7)/in_body"]
    assert "it raised ValueError: the file is half written" in str(report)


def test_a_process_that_hangs_is_ended_and_breaks_l12() -> None:
    report = crash(agents.hang, points="refund*/in_body", deadline=0.5, restarts=1)
    assert "L12" in broken(report)["refund(7)/in_body"]
    assert "did not end within 0.5 seconds" in str(report)


def test_another_answer_breaks_l1() -> None:
    report = crash(agents.forget_the_answer, points="refund*/in_body")
    assert broken(report) == {"refund(7)/in_body": {"L1"}}


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "tests.testing.foreign_agents", name, "{folder}"]


def test_an_agent_may_be_a_command() -> None:
    report = foreign_matrix(
        command("start"), command("resume"), state=state, events=mailed, points="refund*/after_effect"
    )
    assert report.ok, report
    assert [cell.outcome for cell in report.cells[1:]] == ["recovered"]


def test_a_command_that_fails_says_how() -> None:
    failing = [sys.executable, "-S", "-c", "raise SystemExit('no such order')"]
    with pytest.raises(NotDeterministicError, match="the command ended with 1: no such order"):
        foreign_matrix(failing, failing)


def test_what_tests_nothing_is_refused() -> None:
    with pytest.raises(NotDeterministicError, match="two runs without a crash differ"):
        foreign_matrix(agents.by_the_clock, agents.resume)
    with pytest.raises(NotDeterministicError, match="without any crash, it raised ValueError"):
        foreign_matrix(agents.give_up, agents.resume)
    with pytest.raises(PointNotReachedError, match="put @watched"):
        foreign_matrix(agents.without_tools, agents.resume)
    with pytest.raises(PointNotReachedError, match="nosuch"):
        crash(agents.resume, points="nosuch*/*")
    with pytest.raises(PointNotReachedError, match="gone"):
        crash(agents.resume, repro="gone(7)/in_body")
    with pytest.raises(DefinitionError, match="in the same form"):
        foreign_matrix(agents.start, command("resume"))


def test_a_watched_tool_is_itself_outside_a_crash_test(tmp_path: Path) -> None:
    model_asked([("call", "1")])
    inside()
    assert agents.refund(tmp_path, "7", "k") == "refunded"
    assert list(inspect.signature(agents.refund).parameters) == ["folder", "order_id", "call_id"]
    assert inspect.iscoroutinefunction(agents.send_mail)
    assert json.loads((tmp_path / "bank.jsonl").read_text()) == {"order": "7", "key": "k"}

    @watched
    def fails() -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        fails()
