"""Deterministic tests for agents: a scripted model, and crashes at every point.

The pytest plugin, the table for a terminal, the Hypothesis strategies and the conformance suite stand in modules of
their own: they need more than the standard library.
"""

from durably.testing.cassette import RecordedModel
from durably.testing.determinism import NotDeterministicError
from durably.testing.effects import StepReport
from durably.testing.engines import ENGINES, Engine, Store
from durably.testing.faults import POINTS, Crash, CrashSignal, FaultPlan, PointSpec, VacuousTestError
from durably.testing.fuse import NetworkFuse, UnscriptedCallError
from durably.testing.goldens import Golden, GoldenMissingError
from durably.testing.laws import Violation
from durably.testing.ledger import EffectLedger, Entry
from durably.testing.llm_server import Fault, LLMServer
from durably.testing.matrix import crash_matrix
from durably.testing.mutate import CodeChange, change_matrix
from durably.testing.replay import replay
from durably.testing.report import CellReport, Report
from durably.testing.scenario import CrashTest
from durably.testing.scripted import ScriptedModel, call

__all__ = [
    "ENGINES",
    "POINTS",
    "CellReport",
    "CodeChange",
    "Crash",
    "CrashSignal",
    "CrashTest",
    "EffectLedger",
    "Engine",
    "Entry",
    "Fault",
    "FaultPlan",
    "Golden",
    "GoldenMissingError",
    "LLMServer",
    "NetworkFuse",
    "NotDeterministicError",
    "PointSpec",
    "RecordedModel",
    "Report",
    "ScriptedModel",
    "StepReport",
    "Store",
    "UnscriptedCallError",
    "VacuousTestError",
    "Violation",
    "call",
    "change_matrix",
    "crash_matrix",
    "replay",
]
