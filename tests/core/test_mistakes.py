"""Mistakes that everybody makes once: each gets a sentence that says what to write instead."""

from __future__ import annotations

import asyncio
import logging
import math
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import inngest
import pytest
from temporalio.client import Client

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.inngest import InngestBackend
from durably.backends.temporal import TemporalBackend
from durably.core import (
    Agent,
    AgentInput,
    Backend,
    Budget,
    Compaction,
    Context,
    DefinitionError,
    Event,
    InvokeError,
    MemorySessions,
    Retention,
    SerializationError,
    Singleton,
    StepAPI,
    function,
    tool,
)
from durably.core.flow import Debounce, Priority
from durably.testing import ScriptedModel


async def save_answer() -> int:
    return 1


@function("save-it")
async def SAVE(ctx: Context[None]) -> int:  # noqa: N802 - used like a constant above
    return 1


class Mute:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("mute")


Step = Callable[[Any], Awaitable[Any]]

STEPS: list[tuple[str, Step, str]] = [
    ("run without an id", lambda step: step.run(save_answer), r"write step\.run\('save-answer', save_answer, \.\.\.\)"),
    ("run without a body", lambda step: step.run("save"), r"write step\.run\('save', fn, \.\.\.\)"),
    ("run of a coroutine", lambda step: step.run("save", 7), "pass the function itself and its arguments"),
    ("retries of text", lambda step: step.run("save", save_answer, retries="3"), "retries is a number of further"),
    ("invoke by name", lambda step: step.invoke("k", "name"), r"pass the function itself, or FunctionRef\('name'\)"),
    ("invoke without an id", lambda step: step.invoke(SAVE), r"write step\.invoke\('ask', save_it, data\)"),
    ("invoke of code", lambda step: step.invoke("k", save_answer), r"decorate it with @function\('its-id'\)"),
    ("invoke of a number", lambda step: step.invoke("k", 7), "takes a durable function or an agent, not 7"),
    ("sleep without an id", lambda step: step.sleep("1h"), r"write step\.sleep\('pause', '1h'\)"),
    ("sleep_until without an id", lambda step: step.sleep_until(7.0), r"write step\.sleep_until\('pause', 7\.0\)"),
    ("sleep of nothing", lambda step: step.sleep("s", None), "write seconds, a timedelta, or a text with units"),
    ("sleep of text", lambda step: step.sleep("s", "1"), "write seconds, a timedelta, or a text with units"),
    ("wait without an id", lambda step: step.wait_for_event("x"), r"write step\.wait_for_event\('wait', 'x'\)"),
    ("a match of text", lambda step: step.wait_for_event("w", "x", match="id"), "match= is a dict of dotted paths"),
    ("a match of numbers", lambda step: step.wait_for_event("w", "x", match={7: 1}), "dotted paths as its keys"),
    ("a match of an object", lambda step: step.wait_for_event("w", "x", match={"a": Mute()}), "written as JSON"),
]


@pytest.mark.parametrize(("code", "sentence"), [pair[1:] for pair in STEPS], ids=[pair[0] for pair in STEPS])
@pytest.mark.asyncio
async def test_a_step_that_cannot_work_says_what_to_write(code: Step, sentence: str) -> None:
    @function("f", retries=0)
    async def run(ctx: Context[None]) -> Any:
        return await code(ctx.step)

    async with MemoryBackend([run]) as backend:
        with pytest.raises(InvokeError, match=sentence):
            await backend.invoke(run)


@pytest.mark.asyncio
async def test_the_right_way_still_works() -> None:
    @function("f", retries=0)
    async def run(ctx: Context[None]) -> int:
        step: StepAPI = ctx.step
        await step.sleep("pause", "1h")
        return await step.run("save-answer", save_answer)

    async with MemoryBackend([run]) as backend:
        assert await backend.invoke(run) == 1


def agent(**options: Any) -> Agent:
    given: dict[str, Any] = {"model": ScriptedModel("hi"), "instructions": "", **options}
    return Agent("a", **given)


TYPOS: Any = {"retry": 3}
NO_NUMBERS: list[Any] = [math.nan, math.inf, "1", True, 0]
NO_PRIORITIES: list[Any] = [5, math.nan, None, ""]

MADE: list[tuple[str, Callable[[], object], str]] = [
    ("a rule by position", lambda: Debounce(5), r'Debounce\(period="5s"\)'),  # type: ignore[call-arg]
    ("a budget by position", lambda: Budget(5), r"Budget\(cost=0\.5"),  # type: ignore[call-arg]
    ("a compaction by position", lambda: Compaction(5), r"Compaction\(at_tokens="),  # type: ignore[call-arg]
    ("a retention by position", lambda: Retention("1 day"), r"Retention\(age="),  # type: ignore[call-arg]
    ("a function without an id", lambda: function(save_answer), r"@function\('save-answer'\) above"),  # type: ignore[arg-type]
    ("concurrency of a number", lambda: agent(concurrency=5), r"write concurrency=Concurrency\(limit=5\)"),
    ("debounce of text", lambda: agent(debounce="5s"), r'write debounce=Debounce\(period="5s"\)'),
    ("singleton of text", lambda: agent(singleton="key"), r'write singleton=Singleton\("session_key"'),
    ("a retry policy of a number", lambda: agent(retry_policy=5), r"write retry_policy=RetryPolicy\("),
    ("a failure handler of text", lambda: agent(on_failure="tell"), r"'async def f\(ctx: Context\[FailedRun\]\)', not"),
    ("a sync failure handler", lambda: agent(on_failure=print), r"'async def f\(ctx: Context\[FailedRun\]\)', not"),
    ("a failure handler of nothing", lambda: agent(on_failure=save_answer), "is a function of the failed run"),
    ("a durable failure handler", lambda: agent(on_failure=SAVE), "leave the decorator of 'save-it' out"),
    ("an option that is misspelt", lambda: agent(tool=[]), r"there is no option tool=; did you mean tools=\?"),
    ("an option of a function", lambda: function("f", **TYPOS)(SAVE.handler), r"function 'f': .*did you mean retries="),
    ("an option of a tool", lambda: tool(save_answer, **TYPOS), r"tool 'save_answer': .*did you mean retries="),
    ("an unknown option", lambda: agent(xyz=1), r"there is no option xyz=; these are: batch, budget, "),
    ("a sink that is none", lambda: agent(sink=5), "sink= is a function of each piece"),
    ("options of text", lambda: agent(model_options="x"), "model_options= is a dict"),
    ("the class of a store", lambda: agent(sessions=MemorySessions), "is no store of sessions"),
    *((f"a budget of {n}", partial(Budget, cost=n), "each above 0") for n in NO_NUMBERS),
    *((f"a budget of {n} tokens", partial(Budget, tokens=n), "each above 0") for n in (*NO_NUMBERS, 1.5)),
    *((f"a compaction at {n}", partial(Compaction, at_tokens=n), "whole numbers") for n in (*NO_NUMBERS, 1.5)),
    *((f"a priority of {n}", partial(Priority, n), "Priority takes a text") for n in NO_PRIORITIES),
    ("a singleton of no key", lambda: Singleton(None), "Singleton key None: write"),  # type: ignore[arg-type]
    ("no model", lambda: agent(model=None), "write 'provider:model'"),
    ("the class of a model", lambda: agent(model=ScriptedModel), "write 'provider:model'"),
    ("a model without its provider", lambda: agent(model="gpt-5"), "write 'provider:model'"),
    ("no instructions", lambda: agent(instructions=None), "instructions= is the system prompt"),
    ("one tool", lambda: agent(tools=save_answer), r"tools= is a list, such as tools=\[get_order\]"),
    ("turns of text", lambda: agent(max_iterations="5"), "max_iterations must be 1 or more"),
    ("a budget of a number", lambda: agent(budget=5), r"write budget=Budget\(tokens=100_000\)"),
    ("an agent without a name", lambda: Agent(ScriptedModel("hi"), model="", instructions=""), "name is a text"),  # type: ignore[call-overload]
    ("one function", lambda: MemoryBackend(SAVE), "functions= is a list"),  # type: ignore[arg-type]
    ("resources of a list", lambda: MemoryBackend([SAVE], resources=["shop"]), "resources= is a dict"),  # type: ignore[arg-type]
    ("secrets of text", lambda: MemoryBackend([SAVE], secrets="hunter2"), "secrets= is a list of texts"),
    ("bytes of text", lambda: MemoryBackend([SAVE], max_payload_bytes="9"), "is a number of bytes"),  # type: ignore[arg-type]
    ("no bytes", lambda: MemoryBackend([SAVE], max_payload_bytes=0), "is a number of bytes, 1 or more, not 0"),
    ("a retention of days", lambda: MemoryBackend([SAVE], retention=5), r"MemoryBackend: retention=5: write"),  # type: ignore[arg-type]
    ("a timeout of the model", lambda: agent(model_timeout="soon"), "agent 'a': model_timeout cannot be read: 'soon'"),
    ("a database in memory", lambda: SQLiteBackend(":memory:"), "use MemoryBackend"),
    ("a database without a name", lambda: SQLiteBackend(""), "is empty"),
    ("a database by its URL", lambda: SQLiteBackend("sqlite:///runs.db"), "write the path alone"),
    ("the address of Temporal", lambda: TemporalBackend("localhost:7233", task_queue="q"), r"await Client\.connect"),  # type: ignore[arg-type]
    ("the address of Inngest", lambda: InngestBackend("http://localhost:8288"), r"inngest\.Inngest\(app_id="),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "sentence"), [pair[1:] for pair in MADE], ids=[pair[0] for pair in MADE])
def test_a_definition_that_cannot_work_says_what_to_write(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        make()


@pytest.mark.asyncio
async def test_calls_of_a_program_say_what_to_write() -> None:
    async with MemoryBackend([SAVE, asked := agent()]) as backend:
        with pytest.raises(ValueError, match="status='done' is no status of a run; these are: running, waiting"):
            await backend.runs(status="done")  # type: ignore[arg-type]
        with pytest.raises(DefinitionError, match=r"decorate it with @function\('its-id'\)"):
            await backend.start(save_answer)  # type: ignore[call-overload]
        with pytest.raises(SerializationError, match="the input of 'a' is not AgentInput: Input should be"):
            await backend.start(asked, 5)  # type: ignore[misc]
        no_tags: list[Any] = [{"tenant": "7"}, 7, "tenant:7"]
        for each in no_tags:
            with pytest.raises(TypeError, match=r"tags are a list of texts, such as \['tenant:7'\], not"):
                await backend.start(SAVE, tags=each)
        with pytest.raises(TypeError, match="a secret is a text or a SecretStr, not a int"):
            MemoryBackend([SAVE], secrets=[5])  # type: ignore[list-item]
        for run_id in (7, None, ["a"], b"a", Mute()):
            with pytest.raises(TypeError, match="a run id is a text, such as 'order-7', not"):
                await backend.run(run_id)  # type: ignore[arg-type]
        tags: Any = (f"tenant:{number}" for number in (7, 8))
        run = await backend.start(SAVE, tags=tags)
        assert [each.id for each in await backend.runs(tags=["tenant:7", "tenant:8"])] == [run.id]


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_an_event_that_nobody_hears_is_said_once(
    engine: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @function("wait")
    async def wait(ctx: Context[None]) -> None:
        await ctx.step.wait_for_event("wait", "shop/closed")

    @function("heard", triggers=["shop/opened"])
    async def heard(ctx: Context[Any]) -> None:
        return

    functions = [wait, heard]
    made = MemoryBackend(functions) if engine == "memory" else SQLiteBackend(tmp_path / "runs.db", functions)
    async with made as backend:
        await backend.start(wait)
        await backend.drain()
        for name in ("shop/opened", "shop/closed", "shop/open", "shop/open"):
            await backend.send(Event(name))
    said = [record.getMessage() for record in caplog.records if "nobody hears" in record.getMessage()]
    assert said == [
        "nobody hears the event 'shop/open': no function has it among its triggers=, and no run waits for it"
    ]


@pytest.mark.asyncio
async def test_a_session_key_without_a_store_is_said(caplog: pytest.LogCaptureFixture) -> None:
    asked = AgentInput(message="hi", session_key="s")
    for options, times in (({}, 1), ({"sessions": "backend"}, 0), ({"singleton": Singleton("session_key")}, 0)):
        caplog.clear()
        made = agent(**options)
        with caplog.at_level(logging.WARNING, "durably"):
            async with MemoryBackend([made]) as backend:
                await backend.invoke(made, asked)
        assert sum('write sessions="backend"' in record.getMessage() for record in caplog.records) == times


def backends(tmp_path: Path) -> list[Backend]:
    return [
        MemoryBackend([SAVE]),
        SQLiteBackend(tmp_path / "runs.db", [SAVE]),
        TemporalBackend(asyncio.run(Client.connect("localhost:1", lazy=True)), task_queue="q", functions=[SAVE]),
        InngestBackend(inngest.Inngest(app_id="a", is_production=False), functions=[SAVE]),
    ]


def test_an_event_loop_that_is_not_asyncio_is_said(tmp_path: Path) -> None:
    for backend in backends(tmp_path):
        opening = backend.__aenter__()
        with pytest.raises(RuntimeError, match=r"backends run on asyncio.*start the program with asyncio\.run\(main"):
            opening.send(None)  # as another event loop would, such as trio's


def test_a_tool_whose_docstring_was_dropped_is_said() -> None:
    code = (
        "from durably.core import tool\n"
        "def look() -> str:\n    'Look.'\n    return ''\n"
        "tool(look); tool(look, name='see', description='See.')"
    )
    said = {}
    for option in ("-O", "-OO"):
        done = subprocess.run(
            [sys.executable, option, "-c", code], capture_output=True, text=True, timeout=50, check=True
        )
        said[option] = done.stderr.strip()
    dropped = "tool 'look' has no description for the model: 'python -OO' drops docstrings; write description="
    assert said == {"-O": "", "-OO": dropped}


MISSING = [
    ("anthropic", "from durably.core import Agent; Agent('a', model='anthropic:x', instructions='')", "anthropic"),
    ("openai", "from durably.core import Agent; Agent('a', model='openai:x', instructions='')", "openai"),
    ("litellm", "from durably.core import Agent; Agent('a', model='litellm:x', instructions='')", "litellm"),
    ("temporalio", "import durably.backends.temporal", "temporal"),
    ("inngest", "import durably.backends.inngest", "inngest"),
    ("typer", "import durably.cli.main", "cli"),
]


def test_a_missing_extra_is_named() -> None:
    code = [
        "import importlib, sys",
        "def try_without(package, code):",
        "    sys.modules[package] = None",
        "    try: exec(code)",
        "    except (ImportError, SystemExit) as error: print(' '.join(str(error).split()))",
        *(f"try_without({package!r}, {code!r})" for package, code, _ in MISSING),
    ]
    said = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, timeout=50, check=True
    )
    lines = said.stdout.splitlines()
    assert len(lines) == len(MISSING), said.stdout
    for line, (_, _, extra) in zip(lines, MISSING, strict=True):
        assert f"pip install 'durably[{extra}" in line
