"""The matrix: what it finds, what it refuses, and what it says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from durably.backends import MemoryBackend, MemoryJournal
from durably.core import Agent, Context, DefinitionError, Event, Function, current_step, function, tool
from durably.core.backend import Backend
from durably.testing import (
    POINTS,
    Engine,
    NotDeterministicError,
    PointNotReachedError,
    ScriptedModel,
    Store,
    call,
    crash_matrix,
)
from tests.testing import agents

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_a_sound_agent_recovers_everywhere(backend: str) -> None:
    report = await crash_matrix(agents.keyed, "refund", backend=backend, state=agents.paid)
    assert report.ok, report
    assert report.counts["recovered"] > 30
    assert report.counts["unchanged"] == 1  # after the result was recorded there is nothing to do again
    effects = {step.key: step.guarantee for step in report.steps}
    assert effects["gather[0]/tool-charge"] == "exactly-once (keyed)"
    assert effects["think"] == "at-least-once"
    assert report.warnings == []


@pytest.mark.parametrize("points", ["tool-*/*", "tool-charge/after_effect", "gather*/after_effect"])
async def test_a_pattern_reaches_tools_that_are_called_in_one_turn(points: str) -> None:
    report = await crash_matrix(agents.unkeyed, "refund", state=agents.paid, points=points)
    assert "gather[0]/tool-charge/after_effect" in [cell.label for cell in report.cells]
    assert not report.ok, "an order is paid twice"


@function("send-both")
async def send_both(ctx: Context[Any]) -> None:
    await asyncio.gather(ctx.step.send_event("a", Event("sent")), ctx.step.send_event("b", Event("sent")))


@function("run-both")
async def run_both(ctx: Context[Any]) -> int:
    try:
        return sum(await asyncio.gather(ctx.step.run("a", len, "a"), ctx.step.run("b", len, "b")))
    except Exception:
        return 0


@pytest.mark.parametrize("target", [send_both, run_both], ids=lambda target: target.id)
async def test_steps_begun_at_once_are_refused(target: Function[Any, Any]) -> None:
    with pytest.raises(NotDeterministicError, match=r"two steps of one branch at the same time.*step\.gather"):
        await crash_matrix(target)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_every_point_is_reached_and_recovered_from(backend: str) -> None:
    report = await crash_matrix(
        agents.every_kind,
        "ann",
        backend=backend,
        functions=[agents.look_up, agents.watch],
        events=[agents.ANSWER],
        points=[name for name in POINTS if name != "replay"],
    )
    assert report.ok, report
    # a crash inside an at-most-once body is reported, not repeated: the one place with another end
    interrupted = {cell.label for cell in report.cells if cell.outcome == "interrupted"}
    assert interrupted == {"once/before_body", "once/after_effect"}
    assert {cell.at for cell in report.cells if cell.crashes} == set(POINTS) - {"replay"}
    assert next(step.guarantee for step in report.steps if step.key == "once") == "at-most-once"


async def test_pairs_crash_during_recovery_too() -> None:
    report = await crash_matrix(agents.look_up, "ann", crashes=2)
    assert report.ok, report
    labels = [cell.label for cell in report.cells if cell.crashes == 2]
    assert "upper/after_effect, upper/after_effect" in labels
    assert "upper/after_commit, upper/replay" in labels
    assert not report.left_out


async def test_more_crashes_than_two_are_sampled_in_the_open() -> None:
    report = await crash_matrix(agents.look_up, "ann", crashes=3)
    assert report.ok, report
    assert max(cell.crashes for cell in report.cells) == 3
    assert report.known >= len(report.cells)


async def test_an_effect_without_a_key_is_found_and_explained() -> None:
    report = await crash_matrix(agents.unkeyed, "refund", state=agents.paid)
    (cell,) = report.failures
    assert cell.label == "gather[0]/tool-charge/after_effect"
    (violation,) = cell.violations
    assert (violation.law, violation.step) == ("L1", "gather[0]/tool-charge")
    assert "had its effect twice" in violation.found
    assert "idempotency_key" in violation.meaning
    (warning,) = report.warnings
    assert "a crash at gather[0]/tool-charge/after_effect runs it 2 times" in warning
    text = str(report)
    assert "---- crash 1 at gather[0]/tool-charge/after_effect" in text
    assert "reproduce: await crash_matrix(..., repro='gather[0]/tool-charge/after_effect')" in text


async def test_a_key_that_the_world_ignores_is_told_apart() -> None:
    report = await crash_matrix(agents.ignoring, "refund", state=agents.paid)
    (cell,) = report.failures
    assert "ignores it" in cell.violations[0].meaning


async def test_the_smallest_crash_set_is_shown() -> None:
    report = await crash_matrix(agents.unkeyed, "refund", state=agents.paid, crashes=2, points="*/tool-charge/*")
    assert len(report.failures) > 1
    assert report.failures[0].label == "gather[0]/tool-charge/after_effect"
    assert "another problem" not in str(report)


async def test_one_cell_can_be_repeated() -> None:
    label = "gather[0]/tool-charge/before_body, gather[0]/tool-charge/after_effect"
    report = await crash_matrix(agents.unkeyed, "refund", state=agents.paid, repro=label)
    assert [cell.label for cell in report.cells] == ["no crash", label]
    assert not report.ok


@pytest.mark.parametrize("points", ["tool-refund/*", ["after_effect", "no_such_point"]])
async def test_a_declared_point_that_never_fires_is_an_error(points: Any) -> None:
    with pytest.raises(
        PointNotReachedError, match=r"never happened: no run passed that point.*load-context/before_start"
    ):
        await crash_matrix(agents.keyed, "refund", points=points)


async def test_a_repeated_crash_that_never_fires_is_an_error() -> None:
    with pytest.raises(PointNotReachedError, match="think/after_effect#9"):
        await crash_matrix(agents.keyed, "refund", repro="think/after_effect#9")


async def _no_factory() -> None:
    raise NotImplementedError


@pytest.mark.parametrize("target", [None, "app:agent", 7, _no_factory])
async def test_what_cannot_be_crashed_is_said(target: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot be crashed: give an agent, a durable function, or a function"):
        await crash_matrix(target)


async def test_an_unknown_mode_is_said() -> None:
    mode: Any = "kill"
    with pytest.raises(ValueError, match="mode='kill': write one of 'inproc', 'sigkill'"):
        await crash_matrix(lambda: None, mode=mode)


async def test_state_needs_a_fresh_world() -> None:
    with pytest.raises(Exception, match="each needs a fresh one"):
        await crash_matrix(agents.helper, "refund", state=agents.paid)


async def test_a_run_that_waits_for_ever_is_refused_with_the_reason() -> None:
    functions = [agents.look_up]

    @function("patient")
    async def patient(ctx: Context[str]) -> None:
        await ctx.step.wait_for_event("answer", "answered")

    with pytest.raises(NotDeterministicError, match=r"waits at 'answer' for 'answered'.*events="):
        await crash_matrix(patient, "ann", functions=functions)


async def test_too_many_pairs_are_sampled_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.testing.crash.matrix.PAIR_BOUND", 5)
    monkeypatch.setattr("durably.testing.crash.matrix.SAMPLE", 40)
    report = await crash_matrix(agents.keyed, "refund", crashes=2)
    assert report.ok, report
    pairs = [cell for cell in report.cells if cell.crashes == 2]
    assert 20 <= len(pairs) <= 40
    assert report.left_out > 500
    assert f"{report.left_out} combinations left out" in str(report)


@pytest.mark.parametrize("crashes", [1, 2])
async def test_shared_lives_change_nothing(monkeypatch: pytest.MonkeyPatch, crashes: int) -> None:
    async def cells(bound: int) -> list[tuple[str, str, int]]:
        monkeypatch.setattr("durably.testing.crash.matrix.PAIR_BOUND", bound)
        monkeypatch.setattr("durably.testing.crash.matrix.SAMPLE", 80)
        report = await crash_matrix(
            agents.every_kind,
            "ann",
            crashes=crashes,
            functions=[agents.look_up, agents.watch],
            events=[agents.ANSWER],
            points=["after_*", "before_*", "registered", "backing_off", "replay*"][: 4 if crashes == 1 else 1],
        )
        return [(cell.label, cell.outcome, cell.restarts) for cell in report.cells]

    shared, full = await cells(bound=0), await cells(bound=1000)
    assert [each for each in full if each in shared] == shared  # more of the pairs are left out where they are many
    assert crashes > 1 or shared == full


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_branches_are_crashed_in_several_orders(seed: int) -> None:
    report = await crash_matrix(agents.keyed, "refund", state=agents.paid, seed=seed, points="gather*/*")
    assert report.ok, report


async def test_an_agent_that_does_something_at_most_once_is_sound() -> None:
    def build() -> tuple[Agent, list[str]]:
        rung: list[str] = []

        @tool(effect="at_most_once")
        async def ring() -> str:
            rung.append("ding")
            return "rung"

        return Agent("bell", model=ScriptedModel(call("ring"), "done"), instructions="", tools=[ring]), rung

    report = await crash_matrix(build, "go", state=len)
    assert report.ok, report
    assert report.counts["interrupted"] == 2
    assert report.warnings == []


# -- broken engines


class Forgetful(MemoryJournal):
    """Loses the newest record of each run when a worker dies."""

    def bury(self, worker: str) -> None:
        super().bury(worker)
        for records in self._records.values():
            if len(records) > 1 and records[-1].kind != "run":
                records.pop()


def broken(journal: type[MemoryJournal]) -> Engine:
    def open_backend(functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
        if type(store.journal) is not journal:
            store.journal = journal()
        return MemoryBackend(functions, journal=store.journal, clock=store.clock())

    return Engine(name="broken", open=open_backend, journal=lambda store: store.journal)


async def test_a_journal_that_loses_a_record_is_caught() -> None:
    report = await crash_matrix(agents.keyed, "refund", backend=broken(Forgetful), state=agents.paid)
    laws = {violation.law for cell in report.failures for violation in cell.violations}
    assert laws >= {"L2", "L3"}, report
    assert "a fault of the backend" in str(report)


async def test_a_backend_that_reports_no_bodies_is_refused() -> None:
    class Silent(MemoryBackend):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "probe":
                plan = value
                value = lambda point: None if point.name == "before_body" else plan(point)  # noqa: E731
            super().__setattr__(name, value)

    def open_backend(functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
        return Silent(functions, journal=store.journal)

    with pytest.raises(PointNotReachedError, match="never reported the point 'before_body'"):
        await crash_matrix(agents.look_up, "ann", backend=open_backend)


async def test_an_engine_given_as_a_function_is_used() -> None:
    stores: list[str] = []

    def open_backend(functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
        stores.append(store.id)
        return MemoryBackend(functions, journal=store.journal)

    report = await crash_matrix(agents.keyed, "refund", backend=open_backend, points="after_effect")
    assert report.ok, report
    assert len(set(stores)) < len(stores)  # one store for all lives of a cell


# -- user code


async def test_tasks_that_a_dead_process_left_are_gone() -> None:
    left: list[asyncio.Task[bool]] = []

    def build() -> Agent:
        @tool
        async def start() -> str:
            left.append(asyncio.create_task(asyncio.Event().wait()))
            return "started"

        return Agent("lingers", model=ScriptedModel(call("start"), "done"), instructions="", tools=[start])

    report = await crash_matrix(build, "go", points="tool-start/after_effect")
    assert report.ok, report
    assert left
    assert all(each.cancelled() for each in left)


async def test_a_swallowed_crash_is_still_a_crash() -> None:
    def build() -> Agent:
        @tool
        async def careless() -> str:
            try:
                current_step().heartbeat()
            except BaseException:
                return "nothing happened"
            return "fine"

        return Agent("careless", model=ScriptedModel(call("careless"), "done"), instructions="", tools=[careless])

    report = await crash_matrix(build, "go")
    assert report.ok, report
    assert "tool-careless/in_body" in {cell.label for cell in report.cells}


async def test_no_secret_is_in_a_record() -> None:
    @function("leaks")
    async def leaks(ctx: Context[str]) -> str:
        return await ctx.step.run("log-in", lambda: "hunter22")

    report = await crash_matrix(leaks, "ann", secrets=["hunter22"])
    assert {violation.law for cell in report.failures for violation in cell.violations} == {"L14"}
    assert "hunter22" not in str(report)


async def test_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    await crash_matrix(agents.keyed, "refund", progress=lambda *each: told.append(each), points="after_effect")
    assert [label for _, _, label in told][:2] == ["load-context/after_effect", "load-history/after_effect"]
    assert all(done <= known for done, known, _ in told)


async def test_a_long_agent_takes_one_run_for_each_point() -> None:
    def build() -> Agent:
        @tool(effect="pure")
        async def act(n: int) -> str:
            return f"did {n}"

        model = ScriptedModel(*[call("act", n=n) for n in range(10)], "done")
        return Agent("long", model=model, instructions="", tools=[act], max_iterations=20)

    report = await crash_matrix(build, "go")
    assert report.ok, report
    assert len(report.cells) == 23 * 4 + 3 + 2  # 23 steps with four points, three of the run; calm, and evicted


async def test_the_harness_needs_no_test_tools() -> None:
    code = """
import sys
for name in ("pytest", "hypothesis", "rich"):
    sys.modules[name] = None
import durably.testing
assert durably.testing.crash_matrix
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def stumbles_at(starts: int) -> Function[None, int]:
    """Code whose body fails once in all experiments, as on a machine that is busy for a moment."""
    begun: list[int] = []

    async def stumble() -> int:
        begun.append(len(begun))
        if len(begun) == starts:
            raise TimeoutError("busy")
        return 1

    async def code(ctx: Context[None]) -> int:
        return await ctx.step.run("stumble", stumble)

    return Function[None, int]("code", code, input_type=None, output_type=int)


@pytest.mark.parametrize("server", [True, False])
async def test_a_point_that_one_experiment_alone_passed_is_missed_where_time_is_the_harness_own(server: bool) -> None:
    def open_backend(functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
        return MemoryBackend(functions, journal=store.journal, clock=store.clock())

    # Four runs without a crash, one that is replayed after each step, and three that crash before it: it fails in the
    # first life of the next one.
    backend = open_backend if server else "memory"
    report = await crash_matrix(stumbles_at(8 if server else 9), backend=backend)
    missed = [cell.label for cell in report.cells if cell.outcome == "missed"]
    assert missed == ([] if server else ["stumble/backing_off", "stumble/before_body#1"])
    assert (report.ok, report.left_out) == (server, 2 if server else 0), report
