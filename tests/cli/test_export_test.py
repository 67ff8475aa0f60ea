"""`durably export RUN --as-test`: the file it writes passes and fails as it should."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from durably.backends import SQLiteBackend
from durably.cli.main import app
from durably.core import Agent, InvokeError, NonRetriableError, delegate, tool
from durably.core.history import History
from durably.testing import ScriptedModel, call
from tests.testing.test_plugin import PLUGIN

pytest_plugins = "pytester"

PROGRAM = """
from durably.core import Agent, NonRetriableError, current_step, delegate, tool
from durably.testing import ScriptedModel

paid = []
nobody = ScriptedModel()

@tool(effect="pure")
def get_order(order_id: str) -> str:
    return f"order {order_id}"

@tool(retries=0, on_error="raise")
def refund(order_id: str, cents: int) -> str:
    %s
    return "paid"

helper = Agent("helper", model=nobody, instructions="Say what the policy is.")
desk = Agent("desk", model=nobody, instructions="Help.", tools=[get_order, delegate(helper), refund])
other = Agent("other", model=nobody, instructions="Help.")
"""
"""What was deployed; no model of it can be asked here."""

BROKEN, FIXED = 'raise NonRetriableError("no such account")', "current_step().idempotency_key"


async def record(path: Path, *, fails: bool) -> None:
    """A run in production: the same program, with a model that answers."""

    @tool(effect="pure")
    def get_order(order_id: str) -> str:
        return f"order {order_id}"

    @tool(retries=0, on_error="raise")
    def refund(order_id: str, cents: int) -> str:
        if fails:
            raise NonRetriableError("no such account")
        return "paid"

    asked = ScriptedModel("Policy: 'always' pay.")
    helper = Agent("helper", model=asked, instructions="Say what the policy is.")
    script = ScriptedModel(
        call("get_order", order_id="7"),
        call("ask_helper", task="What is the policy?"),
        call("refund", order_id="7", cents=8490),
        'It is "on its way".',
    )
    desk = Agent("desk", model=script, instructions="Help.", tools=[get_order, delegate(helper), refund])
    async with SQLiteBackend(path, [desk]) as backend:
        run = await backend.start(desk, 'Where is\nmy "money"?', run_id="run-7")
        with suppress(InvokeError):
            await run.result()


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    """The user's folder, which a command and the tests run in."""
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider -p no:asyncio\n")
    return pytester.path


def run_tests(pytester: pytest.Pytester, program: str) -> pytest.RunResult:
    """The outcome of the written tests with a program."""
    (pytester.path / "app.py").write_text(PROGRAM % program)
    return pytester.runpytest_inprocess("-q", *PLUGIN)


def durably(*args: str) -> Result:
    """Call the command in this process, without what it imports staying there."""
    before = set(sys.modules)
    try:
        return CliRunner().invoke(app, [*args, "-b", "sqlite:///runs.db"])
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def export(folder: Path, *, fails: bool) -> str:
    asyncio.run(record(folder / "runs.db", fails=fails))
    (folder / "app.py").write_text(PROGRAM % (BROKEN if fails else FIXED))
    done = durably("export", "run-7", "--as-test", "--target", "app:desk")
    assert done.exit_code == 0, done.output
    assert "run it: pytest test_run_7.py" in done.output
    return (folder / "test_run_7.py").read_text()


def test_a_failed_run_becomes_a_test_that_fails_until_it_is_mended(pytester: pytest.Pytester, folder: Path) -> None:
    source = export(folder, fails=True)
    assert "call('refund', order_id='7', cents=8490)" in source
    assert "since='tool-refund'" in source
    golden = History.load(folder / "histories" / "test_run_7.test_the_run_fits_the_code.jsonl")
    assert golden.records[-1].key == "think:2"

    before = run_tests(pytester, BROKEN)
    before.assert_outcomes(passed=2, failed=1)
    before.stdout.fnmatch_lines(["*no such account*", "FAILED test_run_7.py::test_the_run_ends_well*"])

    run_tests(pytester, FIXED).assert_outcomes(passed=3)


def test_a_crash_that_changes_a_failed_run_is_found_once_it_is_mended(pytester: pytest.Pytester, folder: Path) -> None:
    export(folder, fails=True)
    result = run_tests(pytester, "paid.append(order_id)\n    return str(len(paid))")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_run_7.py::test_no_crash_changes_the_run*"])


def test_a_run_that_ended_well_becomes_a_test_that_notices_a_change(pytester: pytest.Pytester, folder: Path) -> None:
    source = export(folder, fails=False)
    assert "test_the_run_ends_well" not in source
    assert "'helper': ScriptedModel(" in source
    run_tests(pytester, FIXED).assert_outcomes(passed=2)
    renamed = run_tests(pytester, f'{FIXED}\n    return "x"\n\nrefund = tool(name="pay")(refund.fn)\n\ndef more():')
    renamed.stdout.fnmatch_lines(["FAILED test_run_7.py::test_the_run_fits_the_code*"])


def test_what_cannot_be_exported_is_refused(folder: Path) -> None:
    export(folder, fails=False)
    again = durably("export", "run-7", "--as-test", "--target", "app:desk")
    assert (again.exit_code, "test_run_7.py is there already" in again.output) == (2, True)
    untold = durably("export", "run-7", "--as-test")
    assert (untold.exit_code, "--target says what to test" in untold.output) == (2, True)
    wrong = durably("export", "run-7", "--as-test", "--target", "app:other")
    assert (wrong.exit_code, "the run is of 'desk'" in wrong.output) == (2, True)
