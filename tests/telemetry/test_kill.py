"""Spans of a run that goes through several processes, each but the last ended by SIGKILL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durably.testing import Crash, WorkerProcess, restart_until_end
from durably.testing.crash.fork_server import ForkServer
from tests.telemetry.spans_target import work

CRASHES = [
    Crash("flaky", "before_body"),
    Crash("cashier", "child_started"),
    Crash("think", "after_effect"),
    Crash("gather[1]/tool-charge", "after_effect"),
    Crash("think:1", "before_body"),
    Crash("", "after_result", function="cashier"),
    Crash("tell", "after_send"),
    Crash("rest", "registered"),
    Crash("", "before_result", function="main"),
]

BESIDE = {"execute_tool charge", "step note", "run listener"}
"""The spans of what goes on beside the step that a kill meets."""

OF_ONE_ATTEMPT = {"durably.step.attempts", "gen_ai.tool.call.id"}
"""What a worker cannot know of attempts and answers before its time; the attempts are counted besides."""


def spans(folder: Path, *crashes: Crash) -> tuple[list[dict[str, Any]], int]:
    """The spans of the run as all processes together exported them, and how many processes there were."""
    folder.mkdir()

    server, processes = ForkServer(work, hash_seed=1), 0

    def start(number: int, left: Sequence[Crash]) -> WorkerProcess:
        return server.start(str(folder), crashes=left, number=number)

    try:
        for process in restart_until_end(start, crashes):
            process.wait()
            assert process.error == ""
            processes += 1
    finally:
        server.close()
    return [json.loads(line) for line in (folder / "spans").read_text().splitlines()], processes


def outline(found: list[dict[str, Any]]) -> Counter[str]:
    """Each span of a run or a step with all that it says, but for times and attempts."""
    return Counter(
        json.dumps(
            [
                span["name"],
                span["kind"],
                span["context"],
                span["parent_id"],
                span["status"],
                {name: value for name, value in span["attributes"].items() if name not in OF_ONE_ATTEMPT},
                [link["context"] for link in span["links"]],
            ]
        )
        for span in found
        if span["name"] != "bank"
    )


def test_kills_leave_the_spans_of_the_run_and_an_event_for_each_lost_attempt(tmp_path: Path) -> None:
    calm, _ = spans(tmp_path / "calm")
    killed, processes = spans(tmp_path / "killed", *CRASHES)
    assert processes == len(CRASHES) + 1
    # A kill may meet another branch, or another run, between its commit and its span: that span nobody makes again.
    assert outline(killed) <= outline(calm)
    missing = {json.loads(each)[0] for each in (outline(calm) - outline(killed)).elements()}
    assert missing <= BESIDE
    assert set(outline(calm).values()) == {1}
    before = sum(len(span["events"]) for span in calm)
    lost = [event["name"] for span in killed for event in span["events"]]
    attempts = sum(span["attributes"].get("durably.step.attempts", 1) - 1 for span in killed)
    assert before == 1, "the attempt that failed"
    assert len(lost) == attempts > before
    assert lost.count("durably.attempt.failed") + lost.count("durably.attempt.lost") == len(lost)
    # A body that ran again made its own span again, below the one span of its step.
    bank = [span for span in killed if span["name"] == "bank"]
    steps = {span["context"]["span_id"]: span["name"] for span in killed}
    assert len(bank) >= 3
    charges = {"execute_tool charge"}
    assert {steps.get(span["parent_id"], *(charges & missing)) for span in bank} == charges
