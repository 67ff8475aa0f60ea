"""How many files a reader opens to follow one step, and what counts as entering one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.benchmarks import turn_calls
from tests.benchmarks.entries import ROOT, Recorder
from tests.benchmarks.step_trace import LIMITS, NotAvailableError, trace


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore:Cannot find activity to cancel:UserWarning")
@pytest.mark.parametrize("engine", list(LIMITS))
def test_a_new_step_enters_few_files(engine: str) -> None:
    try:
        found = trace(engine)
    except NotAvailableError as error:
        pytest.skip(str(error))
    if not {"core", "backends"} <= {file.partition("/")[0] for file in found.files}:
        pytest.fail(f"a step cannot do without the core and an engine, so the trace is not whole: {found.files}")
    assert found.broken(LIMITS[engine]) == []


@pytest.mark.parametrize("engine", list(turn_calls.LIMITS))
def test_a_turn_makes_few_calls(engine: str) -> None:
    found = turn_calls.turn_calls(engine)
    assert found.total() <= turn_calls.LIMITS[engine], [(each.co_qualname, n) for each, n in found.most_common(40)]


def _define(part: str, name: str, text: str, **names: Any) -> Callable[..., Any]:
    """A function whose code seems to stand in a file of the checkout."""
    code = compile(text, str(ROOT / part / "durably" / name), "exec")
    exec(code, names)
    found: Callable[..., Any] = names["made"]
    return found


def _entered(call: Callable[[], object]) -> list[str]:
    recorder = Recorder()
    with recorder.installed():
        recorder.arm()
        recorder.begin()
        call()
        recorder.end()
    return [file.rpartition("/")[2] for file in recorder.entered]


def test_a_call_into_another_file_and_back_is_two_entries() -> None:
    back = _define("core", "one.py", "def made(): return [each for each in (1, 2)]")
    there = _define("backends", "two.py", "def made():\n  def own(): return back()\n  return own()", back=back)
    first = _define("core", "one.py", "def made(): return there()", there=there)
    assert _entered(first) == ["one.py", "two.py", "one.py"]


def test_frames_that_are_not_the_librarys_are_looked_through() -> None:
    inner = _define("core", "one.py", "def made(): return 1")
    tested = _define("testing", "three.py", "def made(): return inner()", inner=inner)
    assert _entered(_define("core", "one.py", "def made(): return tested()", tested=tested)) == ["one.py"]
    assert _entered(tested) == ["one.py"]


def test_a_coroutine_that_goes_on_is_not_entered_again() -> None:
    text = "async def made(n=0):\n  here = lambda: n\n  await sleep(0)\n  await sleep(0)\n  return here()"
    inner = _define("backends", "two.py", text, sleep=asyncio.sleep)
    outer = _define("core", "one.py", "async def made(): return await inner(1), await inner(2)", inner=inner)
    assert _entered(lambda: asyncio.run(outer())) == ["one.py", "two.py", "two.py"]


def test_a_task_is_called_from_where_its_coroutine_was_made() -> None:
    task = asyncio.create_task
    inner = _define("backends", "two.py", "async def made(): return 1")
    outer = _define("core", "one.py", "async def made(): return await task(inner())", task=task, inner=inner)
    assert _entered(lambda: asyncio.run(outer())) == ["one.py", "two.py"]
    own = "async def own(): return 1\nasync def made(): return await task(own())"
    alone = _define("core", "one.py", own, task=task)
    assert _entered(lambda: asyncio.run(alone())) == ["one.py"]


def test_threads_are_seen() -> None:
    inner = _define("core", "one.py", "def made(): return 1")
    assert _entered(lambda: asyncio.run(asyncio.to_thread(inner))) == ["one.py"]
