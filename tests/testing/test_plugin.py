"""The pytest plugin, run on small test files in a directory of their own."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = "pytester"

INSTALLED = "durably" in {each.name for each in entry_points(group="pytest11")}
PLUGIN = () if INSTALLED else ("-p", "durably.testing.plugin")

AGENT = """
import asyncio
import pytest
from durably.core import Agent, current_step, tool
from durably.testing import CrashTest, ScriptedModel, call

def bank(keyed):
    paid = []
    seen = set()

    @tool
    async def charge(order_id: str) -> str:
        key = current_step().idempotency_key if keyed else len(paid)
        if key not in seen:
            seen.add(key)
            paid.append(order_id)
        return "charged"

    model = ScriptedModel(call("charge", order_id="7"), "done")
    return Agent("support", model=model, instructions="Help.", tools=[charge]), paid
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider -p no:asyncio\n")
    return pytester


def write(project: pytest.Pytester, code: str, name: str = "test_it") -> None:
    project.makepyfile(**{name: AGENT + code})


def run(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    return project.runpytest_inprocess(*PLUGIN, *args)


MARKED = """
@pytest.mark.crashtest(points="tool-charge/*")
def test_refund():
    agent, paid = bank(keyed={keyed})
    return CrashTest(agent, "refund order 7", state=lambda: paid)
"""

FIXTURE = """
def test_refund(crash_matrix):
    crash_matrix.run(lambda: bank(keyed={keyed}), "refund order 7", state=lambda paid: paid)
"""


def test_the_mark_makes_one_test_of_each_point(project: pytest.Pytester) -> None:
    write(project, MARKED.format(keyed=True))
    result = run(project, "-v")
    result.assert_outcomes(passed=4)
    for point in ("before_start", "before_body", "after_effect", "after_commit"):
        result.stdout.fnmatch_lines(f"*test_refund[[]tool-charge/{point}[]] PASSED*")


def test_the_mark_fails_the_one_point_that_doubles_the_effect(project: pytest.Pytester) -> None:
    write(project, MARKED.format(keyed=False))
    result = run(project)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*L1 broken: step 'tool-charge' had its effect twice*", "*idempotency_key*"])
    result.stdout.fnmatch_lines("*reproduce: pytest *test_refund* --crash-repro='tool-charge/after_effect'*")


def test_a_failure_can_be_reproduced_by_its_line(project: pytest.Pytester) -> None:
    write(project, MARKED.format(keyed=False) + FIXTURE.format(keyed=False).replace("test_refund", "test_again"))
    result = run(project, "--crash-repro=tool-charge/after_effect")
    result.assert_outcomes(failed=2)
    run(project, "--crash-repro=tool-charge/before_body").assert_outcomes(passed=2)


def test_the_fixture_fails_by_itself(project: pytest.Pytester) -> None:
    write(project, FIXTURE.format(keyed=False))
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CRASH AT tool-charge/after_effect*", "*crash 1 at tool-charge/after_effect*"])


def test_the_summary_tells_what_was_crashed(project: pytest.Pytester) -> None:
    write(project, FIXTURE.format(keyed=True))
    result = run(project)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines("*test_refund: support on memory: * cells, * recovered, 1 unchanged")


@pytest.mark.parametrize(
    ("options", "cells"),
    [
        (["--crash-points=tool-charge/after_effect"], "3 cells"),
        (["--crash-points=tool-charge/after_effect", "--crash=pairs"], "* cells"),
        (["--crash-points=after_commit", "--durably-backend=sqlite"], "support on sqlite: 7 cells"),
    ],
)
def test_options_go_before_what_the_test_says(project: pytest.Pytester, options: list[str], cells: str) -> None:
    write(project, FIXTURE.format(keyed=True))
    result = run(project, *options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(f"*{cells}*")


def test_crash_tests_can_be_switched_off(project: pytest.Pytester) -> None:
    write(project, MARKED.format(keyed=False) + FIXTURE.format(keyed=False).replace("test_refund", "test_again"))
    run(project, "--crash=off").assert_outcomes(skipped=2)


def test_a_point_that_nothing_passes_is_an_error(project: pytest.Pytester) -> None:
    write(project, MARKED.format(keyed=True).replace("tool-charge/*", "tool-refund/*"))
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*tool-refund/* never happened*")


def test_the_mark_says_what_a_test_must_return(project: pytest.Pytester) -> None:
    write(project, "@pytest.mark.crashtest()\ndef test_refund():\n    pass\n")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*returns (agent, data) or CrashTest(*")


def test_the_mark_kills_processes_too(project: pytest.Pytester) -> None:
    code = """
def build(folder, keyed):
    paid = folder / "paid.txt"

    @tool
    def charge(order_id: str) -> str:
        known = set(paid.read_text().split()) if paid.exists() else set()
        key = current_step().idempotency_key
        if not keyed or key not in known:
            with paid.open("a") as file:
                file.write(key + "\\n")
        return "charged"

    model = ScriptedModel(call("charge", order_id="7"), "done")
    agent = Agent("support", model=model, instructions="Help.", tools=[charge])
    return CrashTest(agent, "refund", state=lambda: len(paid.read_text().split()))

@pytest.mark.crashtest(points="tool-charge/after_effect", mode="sigkill")
def test_good(crash_dir):
    return build(crash_dir, True)

@pytest.mark.crashtest(points="tool-charge/after_effect", mode="sigkill")
def test_bad(crash_dir):
    return build(crash_dir, False)
"""
    write(project, code)
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines("*L1 broken*2 instead of 1*")


def test_html_reports_are_written(project: pytest.Pytester) -> None:
    write(project, FIXTURE.format(keyed=True))
    run(project, "--crash-report=reports").assert_outcomes(passed=1)
    (page,) = Path(project.path, "reports").glob("*.html")
    assert "Crash matrix of support" in page.read_text()


def test_it_works_under_xdist(project: pytest.Pytester) -> None:
    write(project, MARKED.format(keyed=True) + FIXTURE.format(keyed=True).replace("test_refund", "test_again"))
    result = project.runpytest_subprocess(*PLUGIN, "-n", "2")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines("*test_again: support on memory:*")


REACHING_OUT = """
import socket

def test_refund(crash_matrix):
    @tool
    async def ask(question: str) -> str:
        try:
            await asyncio.get_running_loop().getaddrinfo("api.example.com", 443)
        except Exception:
            return "swallowed"
        return "answered"

    model = ScriptedModel(call("ask", question="?"), "done")
    crash_matrix.run(Agent("support", model=model, instructions="Help.", tools=[ask]), "go")

def test_plain():
    with pytest.raises(OSError):
        socket.getaddrinfo("host.invalid", 443)

def test_localhost(crash_matrix):
    with socket.create_server(("localhost", 0)) as server:
        socket.create_connection(server.getsockname()).close()
"""


def test_the_network_guard_fails_a_test_that_reaches_out(project: pytest.Pytester) -> None:
    write(project, REACHING_OUT)
    result = run(project)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines("*tried to reach api.example.com:443*ScriptedModel*")


GOLDEN = """
def test_kept(golden):
    agent, _ = bank(keyed=True)
    assert asyncio.run(golden.check(agent, "refund order 7")).text == "done"
"""


def test_a_golden_history_is_recorded_once_and_replayed(project: pytest.Pytester) -> None:
    write(project, GOLDEN)
    missing = run(project)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines("*no recorded run*--history-record=new*")
    run(project, "--history-record=new").assert_outcomes(passed=1)
    assert Path(project.path, "histories", "test_it.test_kept.jsonl").exists()
    run(project).assert_outcomes(passed=1)


def test_a_golden_history_that_no_longer_fits_fails(project: pytest.Pytester) -> None:
    write(project, GOLDEN)
    run(project, "--history-record=new").assert_outcomes(passed=1)
    write(
        project,
        GOLDEN.replace(
            "agent, _ = bank(keyed=True)", "agent = Agent('support', model=ScriptedModel('hi'), instructions='New.')"
        ),
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*does not fit the code any more*")


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_an_unused_golden_history_fails_the_session(project: pytest.Pytester, options: list[str]) -> None:
    write(project, GOLDEN)
    run(project, "--history-record=new").assert_outcomes(passed=1)
    Path(project.path, "histories", "test_it.test_gone.jsonl").write_text("{}")
    result = project.runpytest_subprocess(*PLUGIN, *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines("*test_it.test_gone.jsonl: no test asks for it*")
    assert run(project, "-k", "kept").ret == pytest.ExitCode.OK
