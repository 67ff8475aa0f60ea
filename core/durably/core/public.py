"""The public names of the core's top level, each from the module that owns it."""

from durably.core.agent import Agent
from durably.core.approval import APPROVAL_GIVEN, APPROVAL_REQUESTED, ApprovalDecision, ApprovalRequest, approve, reject
from durably.core.approval_desk import PendingApproval
from durably.core.backend import Backend
from durably.core.budget import Budget
from durably.core.compaction import Compaction
from durably.core.context import Context
from durably.core.delegation import delegate, delegate_async, delegate_scheduled
from durably.core.engine import Capabilities
from durably.core.errors import (
    ApprovalNotPendingError,
    CrashLoopError,
    DefinitionError,
    DurablyError,
    InvokeError,
    ModelError,
    NonDeterminismError,
    NonRetriableError,
    RetryAfterError,
    RunCancelledError,
    RunNotFoundError,
    SerializationError,
    StepCrashedError,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
    ToolError,
)
from durably.core.events import Event
from durably.core.fallback import FallbackModel
from durably.core.function_toolset import toolset
from durably.core.functions import FailedRun, Function, Singleton, function
from durably.core.hooks import Hooks, Refusal
from durably.core.lifecycle_log import LifecycleLog
from durably.core.loop import create_agent_loop
from durably.core.messages import assistant, user
from durably.core.model import Model
from durably.core.observer import Observer
from durably.core.reference import FunctionRef
from durably.core.result import AgentInput, AgentResult
from durably.core.retention import Pruned, Retention
from durably.core.retry import RetryPolicy
from durably.core.run import Run
from durably.core.run_filter import RunPage
from durably.core.run_view import RunStatus, WaitingFor
from durably.core.sessions import JSONLSessions, MemorySessions, SessionError, SessionStore, SQLiteSessions
from durably.core.steps import StepAPI, StepInfo, current_step
from durably.core.tool_context import ToolContext
from durably.core.tool_definition import tool
from durably.core.tools import Tool, ToolResult
from durably.core.toolsets import Toolset
from durably.core.trace import Trace
from durably.core.worker import run_worker
from durably.core.worker_view import WorkerView

__all__ = [
    "APPROVAL_GIVEN",
    "APPROVAL_REQUESTED",
    "Agent",
    "AgentInput",
    "AgentResult",
    "ApprovalDecision",
    "ApprovalNotPendingError",
    "ApprovalRequest",
    "Backend",
    "Budget",
    "Capabilities",
    "Compaction",
    "Context",
    "CrashLoopError",
    "DefinitionError",
    "DurablyError",
    "Event",
    "FailedRun",
    "FallbackModel",
    "Function",
    "FunctionRef",
    "Hooks",
    "InvokeError",
    "JSONLSessions",
    "LifecycleLog",
    "MemorySessions",
    "Model",
    "ModelError",
    "NonDeterminismError",
    "NonRetriableError",
    "Observer",
    "PendingApproval",
    "Pruned",
    "Refusal",
    "Retention",
    "RetryAfterError",
    "RetryPolicy",
    "Run",
    "RunCancelledError",
    "RunNotFoundError",
    "RunPage",
    "RunStatus",
    "SQLiteSessions",
    "SerializationError",
    "SessionError",
    "SessionStore",
    "Singleton",
    "StepAPI",
    "StepCrashedError",
    "StepError",
    "StepInfo",
    "StepInterruptedError",
    "StepTimeoutError",
    "Tool",
    "ToolContext",
    "ToolError",
    "ToolResult",
    "Toolset",
    "Trace",
    "WaitingFor",
    "WorkerView",
    "approve",
    "assistant",
    "create_agent_loop",
    "current_step",
    "delegate",
    "delegate_async",
    "delegate_scheduled",
    "function",
    "reject",
    "run_worker",
    "tool",
    "toolset",
    "user",
]
