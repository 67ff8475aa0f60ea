"""``durably crash-test``, called as a user calls it: on programs that keep the laws, that break them, and on none."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Durably, command_environment

PROGRAM = '''
import random
import socket
from pathlib import Path

from durably.core import Agent, Context, current_step, function, tool
from durably.core.errors import ModelError
from durably.testing import CrashTest, ScriptedModel, call

class Namespace:
    pass

@tool(effect="pure")
def get_order(order_id: str) -> str:
    """Look up one order."""
    return f"Order {order_id} is on its way."

model = ScriptedModel(call("get_order", order_id="7"), "It is on its way.")
support = Agent("support", model=model, instructions="Help customers.", tools=[get_order])
agents = Namespace()
agents.support = support
orders = 3

def refunds(keyed):
    paid = {}

    @tool
    async def refund(order_id: str) -> str:
        """Pay the money back."""
        paid[current_step().idempotency_key if keyed else len(paid)] = order_id
        return "refunded"

    model = ScriptedModel(call("refund", order_id="7"), "Your money is on its way.")
    agent = Agent("refunds", model=model, instructions="Help.", tools=[refund])
    return CrashTest(agent, state=lambda: list(paid.values()))

def careful():
    return refunds(keyed=True)

def careless():
    return refunds(keyed=False)

def on_disk(folder: Path):
    @tool
    def write(text: str) -> str:
        """Write a line."""
        with open(folder / "lines", "a") as file:
            file.write(text)
        return "written"

    model = ScriptedModel(call("write", text="x"), "Done.")
    return Agent("writer", model=model, instructions="", tools=[write]), folder

@function("dice")
async def dice(ctx: Context[dict[str, int]]) -> int:
    if random.random() < 0.5:
        return await ctx.step.run("small", min, [1, 2])
    return await ctx.step.run("large", max, [1, 2])

@function("double")
async def double(ctx: Context[dict[str, int]]) -> int:
    return await ctx.step.run("add", add, ctx.input["number"])

async def add(number: int) -> int:
    return number + number

class Unreachable:
    name = "unreachable"

    async def complete(self, request):
        socket.create_connection(("192.0.2.1", 443), timeout=1)

def online():
    return Agent("online", model=Unreachable(), instructions="")

keyless = Agent("keyless", model=ScriptedModel(ModelError("set SOME_KEY", provider="x", model="y", retriable=False)),
                instructions="")

async def coroutine():
    return support

def bare():
    return None

def raising():
    raise LookupError("no table")
'''


@pytest.fixture(autouse=True)
def program(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "raises.py").write_text("x = 1\nraise RuntimeError('boom')\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "needs.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "typo.py").write_text("def (\n")


QUESTION = ("--input", '"Where is order 7?"')


def test_an_agent_that_keeps_every_law(durably: Durably) -> None:
    done = durably("crash-test", "app:support", *QUESTION)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tool-get_order" in done.stdout
    assert "support on memory: 25 cells, 24 recovered, 1 unchanged" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_attribute_of_an_attribute_on_sqlite(durably: Durably) -> None:
    done = durably("crash-test", "app:agents.support", *QUESTION, "--backend", "sqlite", "--points", "after_effect")
    assert done.returncode == 0, done.stderr
    assert re.search(r"support on sqlite: \d+ cells", done.stdout)


def test_input_reaches_the_function(durably: Durably) -> None:
    done = durably("crash-test", "app:double", "--input", '{"number": 21}', "--json")
    data = json.loads(done.stdout)
    assert done.returncode == 0
    assert (data["ok"], data["function"], data["error"]) == (True, "double", "")
    assert [step["key"] for step in data["steps"]] == ["add"]


def test_a_broken_law_and_the_line_that_shows_it_again(durably: Durably, tmp_path: Path) -> None:
    done = durably("crash-test", "app:careless", *QUESTION)
    assert done.returncode == 1
    assert "L1 broken: step 'tool-refund' had its effect twice" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "reproduce: " in line)
    words = shlex.split(line.partition("reproduce: ")[2])
    assert words[:2] == ["durably", "crash-test"]
    again = durably(*words[1:], "--html", "picture.html")
    assert again.returncode == 1
    assert "CRASH AT tool-refund/after_effect" in again.stdout
    assert "2 cells" in again.stdout  # the run without a crash, and this one
    assert "tool-refund" in (tmp_path / "picture.html").read_text()


def test_the_line_keeps_an_input_with_braces(durably: Durably) -> None:
    done = durably("crash-test", "app:careless", "--input", '{"message": "Hello"}', "--json")
    line = json.loads(done.stdout)["reproduce"].format(label="a/b")
    assert json.loads(shlex.split(line)[4]) == {"message": "Hello"}


def test_pairs_of_crashes_with_a_key(durably: Durably) -> None:
    done = durably("crash-test", "app:careful", *QUESTION, "--crashes", "2", "--json")
    data = json.loads(done.stdout)
    assert done.returncode == 0
    assert {cell["crashes"] for cell in data["cells"]} == {0, 1, 2}


def test_processes_are_killed(durably: Durably) -> None:
    arguments = ["--mode", "sigkill", "--points", "tool-write/after_effect", "--json"]
    done = durably("crash-test", "app:on_disk", *QUESTION, *arguments)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["backend"], data["mode"], data["counts"]["recovered"]) == ("sqlite", "sigkill", 2)
    assert next(step["most"] for step in data["steps"] if step["key"] == "tool-write") == 2


def test_a_run_that_decides_by_chance_breaks_a_law_without_a_crash(durably: Durably) -> None:
    done = durably("crash-test", "app:dice", "--input", "{}")
    assert done.returncode == 1
    assert "What made the difference was the random generator" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_network_is_cut(durably: Durably) -> None:
    done = durably("crash-test", "app:online", *QUESTION)
    assert done.returncode == 2
    assert "192.0.2.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_fails_by_itself_says_so(durably: Durably) -> None:
    done = durably("crash-test", "app:keyless", *QUESTION)
    assert done.returncode == 0
    assert "warning: the run fails without any crash" in done.stdout
    assert "set SOME_KEY" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "MODULE:OBJECT"),
        (["app"], "'app' names no object: write MODULE:OBJECT, such as app:support"),
        (["app:"], "names no object"),
        ([":support"], "names no object"),
        (["nowhere:support"], "there is no module 'nowhere'"),
        (["app.sub:support"], "there is no module 'app.sub'"),
        (["needs:support"], "No module named 'nowhere_to_be_found'"),
        (["raises:support"], "'raises' cannot be imported: RuntimeError: boom"),
        (["raises:support"], "raises.py, line 2"),
        (["exits:support"], "'exits' cannot be imported: SystemExit: 0"),
        (["typo:support"], "'typo' cannot be imported: "),
        (["app:suport"], "'app' has no 'suport'; close: support"),
        (["app:agents.nobody"], "'app.agents' has no 'nobody'"),
        (["app:orders"], "app:orders is 3: give an agent"),
        (["app:Namespace"], "give an agent"),
        (["app:coroutine"], "give an agent"),
        (["app:bare", *QUESTION], "the target gave None"),
        (["app:support"], "the input of 'support'"),
        (["app:support", "--input", "Where is it?"], "--input is not JSON"),
        (["app:support", *QUESTION, "--backend", "mainframe"], "there is no backend 'mainframe'"),
        (["app:support", *QUESTION, "--backend", "memory", "--mode", "sigkill"], "use backend='sqlite'"),
        (["app:support", *QUESTION, "--mode", "gentle"], "--mode"),
        (["app:support", *QUESTION, "--crashes", "0"], "--crashes"),
        (["app:support", *QUESTION, "--points", "tool-refund/*"], "tool-refund/*"),
        (["app:support", *QUESTION, "--repro", "tool-refund/after_effect"], "tool-refund/after_effect"),
        (["app:support", *QUESTION, "--repro", "nonsense"], "'nonsense' does not name a crash"),
        (["app:support", *QUESTION, "--html", "missing/picture.html"], "there is no folder"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_one_sentence(durably: Durably, arguments: list[str], said: str) -> None:
    done = durably("crash-test", *arguments)
    assert done.returncode == 2
    assert said in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_factory_that_raises_shows_where(durably: Durably) -> None:
    done = durably("crash-test", "app:raising")
    assert done.returncode == 2
    assert "in raising" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("the test could not be made: LookupError: no table")


def test_a_bar_in_a_terminal_and_a_clean_report_in_a_pipe(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [*COMMAND, "crash-test", "app:support", *QUESTION]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=follower, text=True, env=command_environment()
    ) as process:
        os.close(follower)
        shown = read_all(leader)
        assert process.stdout is not None
        report = process.stdout.read()
    assert process.returncode == 0
    assert re.search(r"/\d+", shown)
    assert "\x1b" not in report
    assert "25 cells" in report


def read_all(descriptor: int) -> str:
    shown = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(descriptor)
    return shown.decode()


def test_an_interrupt_is_neither_success_nor_a_broken_law(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom durably.core import Context, function\n"
        "@function('slow')\nasync def slow(ctx: Context[None]) -> None:\n    await ctx.step.run('wait', wait)\n"
        "def wait() -> None:\n    print('waiting', flush=True)\n    time.sleep(30)\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "crash-test", "slow:slow"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=command_environment(),
        # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted" in said
