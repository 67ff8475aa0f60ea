"""The commands that look at runs and act on them, called as a user calls them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from durably.backends import SQLiteBackend
from durably.cli.doctor import EXTRAS
from durably.core import Trace
from durably.core.history import History
from tests.cli.conftest import COMMAND, Durably, command_environment
from tests.cli.program import HOSTILE, QUESTION, echo

ROOT = Path(__file__).parent.parent.parent
HERE = ("--backend", "sqlite:///runs.db")

pytestmark = pytest.mark.usefixtures("database")


def test_runs_are_listed_and_filtered(durably: Durably) -> None:
    done = durably("runs", *HERE)
    assert done.returncode == 0, done.stderr
    assert all(each in done.stdout for each in ("refund-1042", "echo-0", "hostile", "NonRetriableError"))
    failed = json.loads(durably("runs", *HERE, "--status", "failed", "--json").stdout)
    assert [run["id"] for run in failed["runs"]] == ["broken"]
    of_echo = json.loads(durably("runs", *HERE, "--function", "echo", "-n", "2", "--json").stdout)
    assert [run["id"] for run in of_echo["runs"]] == ["broken", "hostile"]

    of_text = json.loads(durably("runs", *HERE, "--text", "cho-", "--json").stdout)
    assert [run["id"] for run in of_text["runs"]] == ["echo-2", "echo-1", "echo-0"]


def test_runs_are_found_by_all_that_is_known_of_them(durably: Durably, tmp_path: Path) -> None:
    async def tagged() -> None:
        async with SQLiteBackend(tmp_path / "runs.db") as client:
            await client.start("echo", {"session_key": "s-1"}, run_id="tagged", tags=["tenant:7", "beta"])

    asyncio.run(tagged())

    def found(*options: str) -> list[str]:
        done = durably("runs", "--json", *options, *HERE)
        assert done.returncode == 0, done.stderr
        return [run["id"] for run in json.loads(done.stdout)["runs"]]

    (child,) = found("--parent", "refund-1042")
    assert found("--root", "refund-1042") == [child, "refund-1042"]
    assert found("--tag", "tenant:7", "--tag", "beta") == found("--session", "s-1") == ["tagged"]
    assert found("--tag", "tenant:7", "--tag", "gamma") == []
    assert found("--status", "failed", "--status", "waiting") == ["tagged", "refund-1042", "broken"]
    assert found("--until", "1h") == found("--since", "2100-01-01T00:00:00Z") == []
    assert "tagged" in found("--since", "1h", "--until", "2100-01-01T00:00:00Z")
    unreadable = durably("runs", "--since", "soon", *HERE)
    assert (unreadable.returncode, "--since cannot be read" in unreadable.stderr) == (2, True)


def test_pages_of_runs_go_both_ways_and_are_counted(durably: Durably) -> None:
    def page(*options: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            durably("runs", "--function", "echo", "-n", "2", "--json", *options, *HERE).stdout
        )
        return found

    first = page()
    second = page("--after", first["next"])
    last = page("--after", second["next"])
    assert [[run["id"] for run in each["runs"]] for each in (first, second, last)] == [
        ["broken", "hostile"],
        ["echo-2", "echo-1"],
        ["echo-0"],
    ]
    assert (first["previous"], last["next"]) == (None, None)
    assert page("--before", second["previous"])["runs"] == first["runs"]
    assert first["counts"] == last["counts"] == {"completed": 4, "failed": 1}
    text = durably("runs", "--function", "echo", "-n", "2", *HERE).stdout
    assert text.startswith("5 runs: 4 completed, 1 failed\n")
    assert f"older runs: --after {first['next']}" in text
    assert "no cursor" in durably("runs", "--after", "nowhere", *HERE).stderr


def test_a_run_that_waits_says_for_what(durably: Durably) -> None:
    (line,) = [line for line in durably("runs", *HERE).stdout.splitlines() if line.startswith("refund-1042")]
    assert "waits for a person to approve refund since " in line
    assert "waits for a person to approve refund since " in durably("show", "refund-1042", *HERE).stdout


def test_the_beginning_of_an_id_is_enough(durably: Durably) -> None:
    assert durably("show", "refund", *HERE).stdout.startswith("refund-desk  refund-1042\n")
    assert durably("logs", "bro", *HERE).stdout == durably("logs", "broken", *HERE).stdout
    several = durably("show", "echo", *HERE)
    assert several.returncode == 2
    assert "several runs have ids that begin with 'echo'" in several.stderr


def test_a_stream_is_followed_and_gone_on_with(durably: Durably) -> None:
    lines = durably("stream", "broken", *HERE).stdout.splitlines()
    assert [line.split()[2:4] for line in lines] == [
        ["started", "run"],
        ["began", "say"],
        ["completed", "say"],
        ["failed", "run"],
    ]
    assert "NonRetriableError: told to" in lines[-1]
    items = [json.loads(line) for line in durably("stream", "broken", "--json", *HERE).stdout.splitlines()]
    assert [item["kind"] for item in items] == ["run_started", "step_began", "step_ended", "run_ended"]
    rest = durably("stream", "broken", "--json", "--from-offset", str(items[1]["offset"] + 1), *HERE).stdout
    assert [json.loads(line) for line in rest.splitlines()] == items[2:]


def test_a_run_is_logged_line_by_line(durably: Durably) -> None:
    lines = durably("logs", "broken", "--follow", *HERE).stdout.splitlines()
    assert [line.split()[2:4] for line in lines] == [["started", "run"], ["completed", "say"], ["failed", "run"]]
    assert "NonRetriableError: told to" in lines[-1]
    records = durably("logs", "refund-1042", "--json", *HERE).stdout
    assert records == durably("export", "refund-1042", *HERE).stdout


def test_a_worker_runs_what_a_client_starts(durably: Durably, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from durably.backends import SQLiteBackend\nfrom tests.cli.program import echo\n"
        "def backend():\n    return SQLiteBackend('runs.db', [echo])\n"
        "def empty():\n    return SQLiteBackend('runs.db')\n"
    )
    worker = subprocess.Popen(
        [*COMMAND, "worker", "app:backend"], cwd=tmp_path, env=command_environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "serving echo on sqlite (Ctrl-C ends it)\n"
        done = durably("start", "echo", "--input", '"at work"', "--wait", "--backend", "app:backend")
        assert (done.returncode, done.stdout) == (0, "at work\n"), done.stderr
        up = json.loads(durably("workers", "--json", *HERE).stdout)["workers"]
        assert worker.pid in [each["pid"] for each in up]
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
        assert worker.returncode == 0
    finally:
        worker.kill()
        worker.communicate()
    assert "has no functions" in durably("worker", "app:empty").stderr
    assert "names no program" in durably("worker", "sqlite:///runs.db").stderr


def test_finished_runs_are_forgotten(durably: Durably) -> None:
    gone = 0
    while gone < 4:  # a run that has only just ended stays, for those who wait for its end
        gone += json.loads(durably("prune", "--keep", "1", "--json", *HERE).stdout)["runs"]
    left = json.loads(durably("runs", "--function", "echo", "--json", *HERE).stdout)["runs"]
    assert [run["id"] for run in left] == ["broken"]
    assert durably("prune", "--older-than", "soon", *HERE).returncode == 2
    assert "say what is to go" in durably("prune", *HERE).stderr


def test_a_run_is_shown_as_a_tree(durably: Durably) -> None:
    done = durably("show", "refund-1042", *HERE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "refund-desk  refund-1042"
    assert lines[1].startswith("waiting  ")
    assert "5,475 → 268  3,168 cached  $0.0119" in lines[1]
    tree = [word for line in lines for word in line.split() if word.startswith(("tool-", "approve-"))]
    assert tree == ["tool-get_order", "tool-get_payments", "tool-ask_policy", "approve-refund"]
    assert any("attempt 1: ConnectionError: the bank" in line for line in lines)


def test_a_step_is_shown_whole(durably: Durably) -> None:
    done = durably("show", "refund-1042", "--step", "gather[1]/tool-get_payments", *HERE)
    assert "attempt 1  failed" in done.stdout
    assert '"order_id": "1042"' in done.stdout
    as_data = json.loads(durably("show", "refund-1042", "--step", "think", "--json", *HERE).stdout)
    assert as_data["model"] == "desk-large"
    missing = durably("show", "refund-1042", "--step", "thnk", *HERE)
    assert missing.returncode == 2
    assert "has no step 'thnk'; its steps: load-context" in missing.stderr


def test_a_trace_and_a_history_are_exported(durably: Durably, tmp_path: Path) -> None:
    trace = Trace.from_json(durably("export", "refund-1042", "--as", "trace", *HERE).stdout)
    assert trace == Trace.from_json(durably("show", "refund-1042", "--json", *HERE).stdout)
    assert durably("export", "refund-1042", "--output", "run.jsonl", *HERE).returncode == 0
    assert History.load(tmp_path / "run.jsonl").run_id == "refund-1042"
    assert "nowhere" in durably("export", "refund-1042", "-o", "nowhere/run.jsonl", *HERE).stderr


def test_what_is_printed_is_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    env = {**command_environment(), "PYTHONIOENCODING": "ascii"}
    shown, exported = (
        subprocess.run([*COMMAND, *words, *HERE], cwd=tmp_path, env=env, capture_output=True, timeout=50, check=True)
        for words in (["show", "refund-1042"], ["show", "refund-1042", "--json"])
    )
    assert "→" in shown.stdout.decode()
    assert Trace.from_json(exported.stdout.decode()).run_id == "refund-1042"


def test_nothing_recorded_reaches_the_terminal_as_a_command(durably: Durably) -> None:
    for command in (["runs"], ["show", "hostile"], ["show", "hostile", "--step", "say"]):
        done = durably(*command, *HERE)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
    assert "\\u001b[2J" in done.stdout
    assert json.loads(json.loads(durably("show", "hostile", "--json", *HERE).stdout)["output"]["text"]) == HOSTILE


def test_a_run_is_started_and_a_worker_elsewhere_takes_it_up(durably: Durably, database: Path) -> None:
    started = durably("start", "echo", "--input", '"from outside"', "--run-id", "outside", *HERE)
    assert started.stdout == "outside\n", started.stderr
    again = durably("start", "echo", "--input", "@nowhere.json", *HERE)
    assert again.returncode == 2
    assert "--input @nowhere.json: No such file" in again.stderr

    async def work() -> Any:
        async with SQLiteBackend(database, [echo]) as backend:
            return await (await backend.run("outside")).result()

    assert asyncio.run(work()) == "from outside"
    waited = durably("start", "echo", "--input", '"from outside"', "--run-id", "outside", "--wait", *HERE)
    assert (waited.returncode, waited.stdout) == (0, "from outside\n")
    failed = durably("start", "echo", "--input", '"fail"', "--run-id", "broken", "--wait", *HERE)
    assert (failed.returncode, failed.stdout) == (1, "NonRetriableError: told to\n")


def test_a_run_of_the_program_is_started_before_a_worker_ever_served_it(durably: Durably) -> None:
    desk = ("--backend", "examples.refund_desk:backend")  # as the example says, in a folder of its own
    started = durably("start", "refund-desk", "--input", json.dumps(QUESTION), "--run-id", "first", *desk)
    assert (started.returncode, started.stdout) == (0, "first\n"), started.stderr
    assert "waits for a worker that serves refund-desk" in durably("show", "first", *desk).stdout
    unfit = durably("start", "refund-desk", "--input", "5", *desk)
    assert unfit.returncode == 2
    assert "refund-desk" in unfit.stderr
    assert "Traceback" not in unfit.stderr


def test_a_run_is_cancelled_and_an_event_is_sent(durably: Durably) -> None:
    assert durably("cancel", "refund-1042", *HERE).stdout == "refund-1042 cancelled\n"
    assert json.loads(durably("send", "order/paid", "--data", '{"id": 7}', "--id", "e-1", "--json", *HERE).stdout) == {
        "id": "e-1"
    }


def test_approvals_are_listed_and_answered(durably: Durably) -> None:
    listed = json.loads(durably("approvals", "--json", *HERE).stdout)
    (asked,) = listed["approvals"]
    assert (asked["tool"], asked["arguments"]["amount"]) == ("refund", 84.9)
    assert asked["id"][:20] in durably("approvals", *HERE).stdout
    unknown = durably("approve", asked["id"], "--arguments", '{"order_id": "1042"}', *HERE)
    assert unknown.returncode == 2
    assert "this backend knows 0 tools 'refund'" in unknown.stderr
    given = json.loads(durably("reject", asked["id"], "--reason", "no", "--by", "Ada", "--json", *HERE).stdout)
    assert (given["approved"], given["reason"], given["by"]) == (False, "no", "Ada")
    late = durably("approve", asked["id"], *HERE)
    assert late.returncode == 2
    assert "Ada refused it" in late.stderr


def test_arguments_are_checked_by_the_program_that_is_named(durably: Durably, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from durably.backends import SQLiteBackend\nfrom examples.refund_desk import desk\n"
        "def backend():\n    return SQLiteBackend('runs.db', [desk])\n"
    )
    program = ("--backend", "app:backend")
    (asked,) = json.loads(durably("approvals", "--json", *program).stdout)["approvals"]
    refused = durably("approve", asked["id"], "--arguments", '{"amount": "much"}', *program)
    assert (refused.returncode, "invalid arguments for refund" in refused.stderr) == (2, True)
    changed = json.dumps({**asked["arguments"], "amount": 40})
    given = json.loads(durably("approve", asked["id"], "--arguments", changed, "--json", *program).stdout)
    assert given["arguments"]["amount"] == 40


def test_a_run_is_retried_and_forked(durably: Durably) -> None:
    refused = durably("retry", "echo-0", *HERE)
    assert (refused.returncode, "echo-0" in refused.stderr) == (2, True)
    assert durably("retry", "broken", *HERE).stdout == "broken\n"
    assert durably("fork", "echo-0", "--after", "say", "--run-id", "echo-again", *HERE).stdout == "echo-again\n"
    assert "'say'" in durably("fork", "echo-0", "--after", "sya", *HERE).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nobody", *HERE], "there is no run 'nobody' in this backend; 'durably runs' lists them"),
        (["runs", "--backend", "sqlite:///nowhere.db"], "there is no file "),
        (["runs", "--backend", "sqlite://runs.db"], "three slashes"),
        (["runs", "--backend", "postgres://here"], "there is no engine 'postgres'"),
        (["runs", "--backend", "temporal://127.0.0.1:1/default"], "names no task queue"),
        (["runs", "--backend", "temporal://127.0.0.1:99999/default?task_queue=q"], "is no URL: Port out of range"),
        (["runs", "--backend", "temporal://127.0.0.1:1/default?task_queue=q&tls=1"], "has the option 'tls'"),
        (["runs", "--backend", "sqlite:///runs.db?mode=ro"], "has the option 'mode'"),
        (["runs", "--backend", "sqlite:///runs.db#2"], "has the part '2'"),
        (["runs", "--backend", "runs.db"], "names no engine: write sqlite:///runs.db, "),
        (["runs", "--backend", "json:loads"], "json:loads failed: TypeError: loads() missing 1 required positional"),
        (["replay", "runs.db", "tests.cli.program:echo"], "runs.db: not the records of a run: 'utf-8' codec"),
        (["runs", "--backend", "temporal://127.0.0.1:1/default?task_queue=q"], "no temporal server answers at 127."),
        (["runs", "--backend", "inngest://127.0.0.1:1"], "names no app"),
        (["runs", "--backend", "inngest://127.0.0.1:1/app"], "no inngest server answers at 127.0.0.1:1"),
        (["runs", "--backend", "tests.cli.program:echo"], "give a backend"),
        (["runs"], "DURABLY_BACKEND"),
        (["start", "echo", "--input", "hello", *HERE], "A text is written with its quotes"),
        (["start", "nobody", *HERE], "no worker has ever served a function 'nobody' here"),
        (["replay", "runs.db", "nowhere:agent"], "there is no module 'nowhere'"),
        (["replay", "nowhere.jsonl", "tests.cli.program:echo"], "nowhere.jsonl: No such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(durably: Durably, arguments: list[str], said: str) -> None:
    done = durably(*arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_file_that_is_mistyped_is_not_made(durably: Durably, tmp_path: Path) -> None:
    durably("runs", "--backend", "sqlite:///typo.db")
    assert not (tmp_path / "typo.db").exists()


CHANGED = """
from durably.core import Context, function
from examples.refund_desk import desk

@function("echo", retries=0)
async def echo(ctx: Context[str]) -> str:
    return await ctx.step.run("speak", lambda: ctx.input)

both = [desk, echo]
"""


def test_replay_names_the_first_step_that_does_not_fit(durably: Durably, tmp_path: Path) -> None:
    (tmp_path / "changed.py").write_text(CHANGED)
    durably("export", "echo-0", "-o", "run.jsonl", *HERE)
    fits = durably("replay", "run.jsonl", "tests.cli.program:echo")
    assert (fits.returncode, fits.stdout) == (0, "1 of 1 runs fit the code\n"), fits.stderr
    broken = durably("replay", "run.jsonl", "changed:echo")
    assert broken.returncode == 1
    assert broken.stdout.startswith("✗ echo-0 (echo) does not fit at step 'say'")


def test_check_replays_every_live_run(durably: Durably, tmp_path: Path, database: Path) -> None:
    (tmp_path / "changed.py").write_text(CHANGED.replace("both = ", "desk = ") + "\nfrom durably.core import Agent\n")
    well = durably("check", "examples.refund_desk:desk", *HERE)
    assert (well.returncode, well.stdout) == (0, "1 of 1 runs fit the code\n"), well.stderr
    (tmp_path / "other.py").write_text(
        "from durably.core import Agent\nfrom examples.refund_desk import desk as old\n"
        "desk = Agent('refund-desk', model=old.model, instructions='x', tools=[])\n"
    )
    ill = durably("check", "other:desk", "--json", *HERE)
    assert ill.returncode == 1, ill.stderr
    (verdict,) = json.loads(ill.stdout)["runs"]
    assert (verdict["run_id"], verdict["fits"]) == ("refund-1042", False)
    assert verdict["step"]


def test_doctor_knows_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*EXTRAS, "all"} == set(project["optional-dependencies"])


def test_doctor(durably: Durably, database: Path) -> None:
    database.chmod(0o644)
    done = durably("doctor", *HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mode 644: others can read it" in " ".join(done.stdout.split())
    assert "backend: sqlite answered in" in done.stdout
    ill = durably("doctor", "--backend", "temporal://127.0.0.1:1/default?task_queue=q", "--json")
    assert ill.returncode == 1
    findings = {each["about"]: each for each in json.loads(ill.stdout)["findings"]}
    assert findings["backend"]["verdict"] == "problem"
    assert findings["clock"]["verdict"] == "ok"


def test_completion_is_offered(durably: Durably) -> None:
    assert "--install-completion" in durably("--help").stdout
