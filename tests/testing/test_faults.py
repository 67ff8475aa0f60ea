"""Points, crashes and plans of them; the ledger that looks on."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.backends import MemoryBackend
from durably.core.steps import Point
from durably.testing import POINTS, Crash, CrashSignal, EffectLedger, FaultPlan, PointNotReachedError
from durably.testing.crash.faults import chain, matches, never_reached
from durably.testing.crash.selection import find_crashes, is_wanted, parse_repro
from tests.testing import agents


@pytest.mark.parametrize(
    "crash",
    [
        Crash("tool-charge", "after_effect"),
        Crash("gather[0]/tool-charge:1", "before_body", 2),
        Crash("think", "replay", 1, "child"),
        Crash("", "before_result"),
        Crash("", "before_first", 0, "child"),
    ],
    ids=lambda crash: crash.label,
)
def test_a_label_can_be_read_back(crash: Crash) -> None:
    assert Crash.parse(crash.label) == crash


def test_a_repro_line_holds_several_crashes() -> None:
    text = "think/after_commit#1, gather[0]/tool-a,b/replay, child::think/before_body"
    assert parse_repro(text, "support") == (
        Crash("think", "after_commit", 1, "support"),
        Crash("gather[0]/tool-a,b", "replay", 0, "support"),
        Crash("think", "before_body", 0, "child"),
    )


@pytest.mark.parametrize("label", ["", "think", "think/after_lunch"])
def test_what_names_no_crash_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match=r"points are|does not name a crash"):
        parse_repro(label, "support")


def test_a_point_must_exist() -> None:
    with pytest.raises(ValueError, match="before_start, before_body"):
        Crash("think", "after_lunch")


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("tool-*/after_effect", "tool-charge/after_effect", True),
        ("gather[0]/*", "gather[0]/think/after_effect", True),
        ("gather[0]/*", "gather0/think/after_effect", False),
        ("think", "think:1", False),
    ],
)
def test_only_the_star_is_special(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text) is fits


@pytest.mark.parametrize(
    "key", ["tool-refund", "tool-refund:1", "gather[0]/tool-refund", "gather:1[2]/gather[0]/tool-refund:3"]
)
@pytest.mark.parametrize("pattern", ["tool-*/*", "tool-refund*/after_effect", "*/after_effect", "after_*"])
def test_a_pattern_means_a_step_in_any_branch(key: str, pattern: str) -> None:
    assert is_wanted(Crash(key, "after_effect"), (pattern,))
    assert is_wanted(Crash(key, "after_effect"), (f"{key}/after_effect",))
    if "/" in pattern:
        assert Crash(pattern.rpartition("/")[0], "after_effect").hits(passing("after_effect", key))


def test_a_step_id_means_every_use_of_it() -> None:
    assert is_wanted(Crash("gather[0]/think:2", "replay"), ("think/replay",))
    assert is_wanted(Crash("gather[0]/think:2", "replay"), ("think:2/replay",))
    assert not is_wanted(Crash("gather[0]/think:2", "replay"), ("think:1/replay",))
    assert not is_wanted(Crash("gather[0]/think:2", "replay"), ("gather[1]/*",))
    assert not Crash("think", "replay").hits(passing("replay", "think:2")), "without a star it is one step"


def test_where_a_point_was_passed_instead_is_said_first() -> None:
    trace = [passing("before_body"), passing("after_commit", "tool-a")]
    assert "The run passed: tool-a/after_commit, think/before_body" in never_reached("tool-b/after_commit", trace)


def passing(name: str, key: str = "think") -> Point:
    return Point(name, "support", "r", key)


def test_crashes_strike_in_their_order() -> None:
    plan = FaultPlan([Crash("think", "after_effect", 1), Crash("think", "after_effect")])
    plan(passing("after_effect"))
    with pytest.raises(CrashSignal, match="think/after_effect#1"):
        plan(passing("after_effect"))
    with pytest.raises(CrashSignal):
        plan(passing("before_body"))  # whatever else the dead process still tries
    plan.revive()
    plan(passing("before_body"))
    assert [crash.occurrence for crash in plan.pending] == [0]
    with pytest.raises(CrashSignal):
        plan(passing("after_effect"))
    plan.check()


def test_a_plan_that_was_not_carried_out_is_an_error() -> None:
    plan = FaultPlan([Crash("think", "after_effect")])
    plan(passing("before_body"))
    with pytest.raises(
        PointNotReachedError, match=r"think/after_effect never happened.*The run passed: think/before_body"
    ):
        plan.check()


def test_each_passage_of_a_trace_is_a_crash() -> None:
    trace = [passing("before_body"), passing("after_effect"), passing("before_body")]
    assert [crash.label for crash in find_crashes(trace)] == [
        "support::think/before_body",
        "support::think/after_effect",
        "support::think/before_body#1",
    ]


@pytest.mark.asyncio
async def test_probes_can_be_chained() -> None:
    ledger, plan = EffectLedger(), FaultPlan()
    backend = MemoryBackend([agents.look_up])
    backend.probe = chain(ledger, None, plan)
    async with backend:
        assert await backend.invoke(agents.look_up, "ann") == "ANN"
    assert ledger.starts("upper") == ledger.effects("upper") == 1
    assert {point.name for point in plan.trace} < set(POINTS)


@pytest.mark.asyncio
async def test_a_plan_can_crash_a_backend_by_hand() -> None:
    ledger = EffectLedger()
    plan = FaultPlan([Crash("upper", "after_effect")], ledger=ledger)
    first = MemoryBackend([agents.look_up])
    first.probe = plan
    with pytest.raises(CrashSignal):
        async with first:
            await first.invoke(agents.look_up, "ann", run_id="r")
    plan.revive()
    second = MemoryBackend([agents.look_up], journal=first.journal)
    second.probe = plan
    async with second:
        assert await second.invoke(agents.look_up, "ann", run_id="r") == "ANN"
    assert [(entry.kind, entry.life, entry.attempt) for entry in ledger.of("started")] == [
        ("started", 0, 1),
        ("started", 1, 2),
    ]
    assert len({entry.idempotency_key for entry in ledger.of("ended")}) == 1


def test_a_ledger_in_a_file_outlives_its_process(tmp_path: Path) -> None:
    ledger = EffectLedger(tmp_path / "ledger.jsonl")
    ledger(passing("before_body"))
    ledger.crashed(passing("after_effect"))
    again = EffectLedger(tmp_path / "ledger.jsonl")
    assert again.entries == ledger.entries
    assert again.life == 1
