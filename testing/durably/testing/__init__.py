"""Deterministic tests for agents: a scripted model, and crashes at every point.

The pytest plugin, the table for a terminal, the Hypothesis strategies and the conformance suite are in separate
modules, because they need more than the standard library.
"""

from durably.testing.agents import answering
from durably.testing.crash.changed_steps import CodeChange
from durably.testing.crash.code_changes import change_matrix
from durably.testing.crash.determinism import NotDeterministicError
from durably.testing.crash.engines import ENGINES, Engine, Store
from durably.testing.crash.faults import POINTS, Crash, CrashSignal, FaultPlan, PointNotReachedError, PointSpec
from durably.testing.crash.guarantees import StepReport
from durably.testing.crash.matrix import crash_matrix
from durably.testing.crash.report import CellReport, Report
from durably.testing.crash.scenario import CrashTest
from durably.testing.crash.worker_process import PointReport, WorkerProcess, restart_until_end
from durably.testing.deploy_check import DeployReport, RunFit, check_deploy
from durably.testing.goldens import Golden, GoldenMissingError
from durably.testing.laws import Violation
from durably.testing.ledger import EffectLedger, Entry
from durably.testing.models.cassette import RecordedModel
from durably.testing.models.llm_server import Fault, LLMServer
from durably.testing.models.prompt_cache import PromptCache
from durably.testing.models.scripted import ScriptedModel, by_message, call
from durably.testing.network_guard import NetworkGuard, UnscriptedCallError
from durably.testing.replay import replay

__all__ = [
    "ENGINES",
    "POINTS",
    "CellReport",
    "CodeChange",
    "Crash",
    "CrashSignal",
    "CrashTest",
    "DeployReport",
    "EffectLedger",
    "Engine",
    "Entry",
    "Fault",
    "FaultPlan",
    "Golden",
    "GoldenMissingError",
    "LLMServer",
    "NetworkGuard",
    "NotDeterministicError",
    "PointNotReachedError",
    "PointReport",
    "PointSpec",
    "PromptCache",
    "RecordedModel",
    "Report",
    "RunFit",
    "ScriptedModel",
    "StepReport",
    "Store",
    "UnscriptedCallError",
    "Violation",
    "WorkerProcess",
    "answering",
    "by_message",
    "call",
    "change_matrix",
    "check_deploy",
    "crash_matrix",
    "replay",
    "restart_until_end",
]
