"""What waits for a person's answer, read from the records of runs; and answers, of which one counts.

Owns: the list of what is pending, and what is checked before an answer is handed over. Does not own: the steps that ask
and wait (``approval.py``).
"""

from __future__ import annotations

import asyncio
import math
import re
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from durably.core.agent import Agent
from durably.core.approval import PLACE, ApprovalDecision, ApprovalQuestion, ApprovalRequest, decision_of
from durably.core.errors import ApprovalNotPendingError, RunNotFoundError, SerializationError
from durably.core.events import Event
from durably.core.functions import Function
from durably.core.history import History, Kind, StepRecord
from durably.core.ids import new_id
from durably.core.messages import JSONObject, ToolCall
from durably.core.replay import MAYBE_EVENT
from durably.core.schema_check import schema_complaint
from durably.core.serialization import codec_for
from durably.core.tools import Tool
from durably.core.toolsets import ListedTool

__all__ = [
    "QUESTION_STEPS",
    "AskingRun",
    "Desk",
    "PendingApproval",
    "answer_approval",
    "pending_approvals",
    "request_id",
]

CONFIRM_SECONDS, LOOK_SECONDS = 5.0, 0.05
"""How long an answer is followed on an engine that hands on events by itself, and how often it is looked at."""

CLOCK_SECONDS = 1.0
"""By how much the clock of a machine may be set back while the order of questions is still told by it."""

_REQUEST, _WAIT, _ASK, _LIST = "request-", "approve-", "ask-", "list-"
QUESTION_STEPS = (_REQUEST, _WAIT, _ASK)
"""What the ids of the steps begin with that say where the questions of a run stand."""

_BESIDE = re.compile(r"gather(:\d+)?\[[01]\]")
_QUESTION = codec_for(ApprovalQuestion)
_ARGUMENTS = codec_for(dict[str, Any])
_LISTED = codec_for(list[ListedTool])


@dataclass(frozen=True, kw_only=True)
class PendingApproval:
    """A tool call that waits for approval.

    Attributes:
        id: The id of the request; the ``approval`` of its :class:`ApprovalRequest`.
        run_id: The run that waits.
        function: The id of its function.
        step: The key of the step that asked, such as ``"request-pay"``.
        tool: The tool.
        arguments: The arguments that the model gave, or ``None`` for a run that asked under an older version.
        asked_at: When it asked, in seconds since 1970.
        expires_at: When the wait times out, in seconds since 1970; ``None`` if it has no timeout.
    """

    id: str
    run_id: str
    function: str
    step: str
    tool: str
    arguments: JSONObject | None
    asked_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class AskingRun:
    """A run that may wait for approval, and when it can have asked, in seconds since 1970.

    Attributes:
        run_id: The run.
        since: It asked no question before.
        until: It asked none of those that may be pending after.
    """

    run_id: str
    since: float = -math.inf
    until: float = math.inf


@dataclass(frozen=True)
class _Question:
    """A question that a run asked, and the record of the end of its wait, if it ended."""

    pending: PendingApproval
    wait: StepRecord | None


class Desk(Protocol):
    """What is asked of a backend."""

    @property
    def functions(self) -> Mapping[str, Function[Any, Any]]: ...
    def now(self) -> float: ...
    async def history(self, run_id: str) -> History: ...
    async def question_history(self, run_id: str) -> History: ...
    async def live_run_ids(self, function: str | None) -> list[str]: ...
    async def asking_runs(self, function: str | None) -> list[AskingRun]: ...
    async def send_events(self, events: Sequence[Event]) -> list[str]: ...
    async def received(self, event: Event) -> Event | None: ...


async def pending_approvals(
    desk: Desk,
    run_id: str | None = None,
    function: str | None = None,
    tool: str | None = None,
    *,
    after: PendingApproval | None = None,
    limit: int,
) -> list[PendingApproval]:
    """Return what is pending, the oldest first.

    Args:
        desk: The backend.
        run_id: Of this run only.
        function: Of runs of this function only.
        tool: Calls of this tool only.
        after: Only what comes after this.
        limit: How many at most.
    """
    found: list[PendingApproval] = []
    asking = [AskingRun(run_id)] if run_id is not None else await desk.asking_runs(function)
    for each in sorted(asking, key=lambda run: run.since):
        if len(found) >= limit and (not found or found[limit - 1].asked_at < each.since - CLOCK_SECONDS):
            break  # the others asked later
        if after is not None and each.until < after.asked_at - CLOCK_SECONDS:
            continue
        await asyncio.sleep(0)  # there may be thousands of runs: others have a turn between two of them
        for question in _questions(await desk.question_history(each.run_id)):
            asked = question.pending
            wanted = tool in (None, asked.tool) and function in (None, asked.function)
            wanted = wanted and (after is None or _place(asked) > _place(after))
            if wanted and await _not_pending(desk, question) is None:
                insort(found, asked, key=_place)
    return found[:limit]


def _place(asked: PendingApproval) -> tuple[float, str]:
    return asked.asked_at, asked.id


async def answer_approval(
    desk: Desk,
    approval: str,
    *,
    approved: bool,
    reason: str = "",
    by: str | None = None,
    arguments: JSONObject | None = None,
) -> ApprovalDecision:
    """Answer a question, if it is pending; the answer that was given.

    Args:
        desk: The backend.
        approval: The question.
        approved: Whether the tool may run.
        reason: Why not.
        by: Who decided.
        arguments: What the tool is to be run with instead.

    Raises:
        ApprovalNotPendingError: If it is not pending, or another answer came first.
        SerializationError: If the arguments do not fit the tool. Nothing was recorded.
    """
    question = await _find(desk, approval)
    refusal = await _not_pending(desk, question)
    if refusal is not None:
        raise refusal
    if arguments is not None:
        await _check_arguments(desk, question.pending, arguments)
    decision = ApprovalDecision(
        approval=approval, approved=approved, reason=reason, by=by, at=desk.now(), arguments=arguments, token=new_id()
    )
    await desk.send_events([decision.to_event()])
    first = await _first_answer(desk, decision)
    if first is not None and first.token != decision.token:
        raise _answered(approval, first)
    return decision


# -- where a question stands


async def _find(desk: Desk, approval: str) -> _Question:
    run_id = approval.rpartition(PLACE)[0]
    try:
        # A question of a run that asked under an older version does not name its run.
        runs = [run_id] if run_id else await desk.live_run_ids(None)
        for each in runs:
            for question in _questions(await desk.question_history(each)):
                if question.pending.id == approval:
                    return question
    except RunNotFoundError:
        pass
    raise ApprovalNotPendingError(approval=approval, reason="no run asks this")


async def _not_pending(desk: Desk, question: _Question) -> ApprovalNotPendingError | None:
    """Why a question cannot be answered, or ``None`` if it can."""
    asked, wait = question.pending, question.wait
    first = decision_of(await desk.received(ApprovalDecision(approval=asked.id, approved=True).to_event()))
    first = first or _answer_in(wait)
    if first is not None:
        return _answered(asked.id, first)
    if wait is not None and wait.kind == "run":
        return ApprovalNotPendingError(approval=asked.id, reason=f"its run has ended ({wait.status})")
    if wait is not None or (asked.expires_at is not None and asked.expires_at <= desk.now()):
        return ApprovalNotPendingError(approval=asked.id, reason="nobody answered in time")
    return None


def _answered(approval: str, first: ApprovalDecision) -> ApprovalNotPendingError:
    what = "approved" if first.approved else "refused"
    when = "" if first.at is None else f" at {datetime.fromtimestamp(first.at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return ApprovalNotPendingError(
        approval=approval, reason=f"{first.by or 'somebody'} {what} it{when}", by=first.by, at=first.at
    )


async def _first_answer(desk: Desk, given: ApprovalDecision) -> ApprovalDecision | None:
    """The answer that counts, or ``None`` where nobody knows yet: without a worker, some engines hand on no event."""
    received = decision_of(await desk.received(given.to_event()))
    looks = int(CONFIRM_SECONDS / LOOK_SECONDS)
    while received is None and looks:
        question = await _find(desk, given.approval)
        if question.wait is not None:
            return _answer_in(question.wait)
        await asyncio.sleep(LOOK_SECONDS)
        looks -= 1
    return received


def _answer_in(wait: StepRecord | None) -> ApprovalDecision | None:
    if wait is None or wait.kind != "wait_for_event" or wait.output is None:
        return None
    return decision_of(MAYBE_EVENT.decode(wait.output, step=wait.key))


# -- reading records


def _questions(history: History) -> Iterator[_Question]:
    """The questions that a run asked, in their order.

    Args:
        history: The records of the run, or those of them that :meth:`Desk.question_history` gives.
    """
    ends, asked = _by_place(history, "wait_for_event", _WAIT), _by_place(history, "send_event", _ASK)
    last = history.records[-1]
    ended = last if last.kind == "run" and last.final else None
    for record in history:
        if record.status != "completed" or record.kind != "step" or not record.step_id.startswith(_REQUEST):
            continue
        question = _read(record)
        if question is None or question.complaint is not None or not question.needed:
            continue
        # In one branch a question waits for its answer before the next one is asked: their ends come in their order.
        place = record.key.rpartition("/")[0], record.step_id.removeprefix(_REQUEST)
        # Before somebody was asked, the wait may not have been registered: an answer would be missed.
        if next(asked[place], None) is not None:
            yield _Question(_pending(history, record, question), next(ends[place], ended))


def _by_place(history: History, kind: Kind, prefix: str) -> Mapping[tuple[str, str], Iterator[StepRecord]]:
    """The ended steps that stand beside questions, by the branch that the question was asked in, and its tool."""
    found: dict[tuple[str, str], list[StepRecord]] = {}
    for record in history:
        if record.final and record.kind == kind and record.step_id.startswith(prefix):
            branch, _, gather = record.key.rpartition("/")[0].rpartition("/")
            if _BESIDE.fullmatch(gather):
                found.setdefault((branch, record.step_id.removeprefix(prefix)), []).append(record)
    return defaultdict(lambda: iter(()), {place: iter(records) for place, records in found.items()})


def _read(record: StepRecord) -> ApprovalQuestion | None:
    try:
        question: ApprovalQuestion = _QUESTION.decode(record.output or "null", step=record.key)
    except SerializationError:  # a step of the user's that has such a name
        return None
    return question


def _pending(history: History, record: StepRecord, question: ApprovalQuestion) -> PendingApproval:
    return PendingApproval(
        id=question.approval,
        run_id=history.run_id,
        function=history.function,
        step=record.key,
        tool=question.tool or record.step_id.removeprefix(_REQUEST),
        arguments=question.arguments,
        asked_at=record.at,
        expires_at=None if question.timeout is None else record.at + question.timeout,
    )


# -- edited arguments


async def _check_arguments(desk: Desk, asked: PendingApproval, arguments: JSONObject) -> None:
    kept = _json(arguments)
    listed = _listed_tool(await desk.history(asked.run_id), asked.tool)
    if listed is not None:
        found = schema_complaint(listed.parameters, kept)
        complaint = None if found is None else f"invalid arguments for {asked.tool}: {found}"
    else:
        complaint = _tool_of(desk, asked).check(ToolCall(id="", name=asked.tool, arguments=kept))
    if complaint is not None:
        raise SerializationError(complaint, step=asked.step)


def _listed_tool(history: History, tool: str) -> ListedTool | None:
    """The tool of a toolset as its run listed it, or ``None`` if it is none of a toolset."""
    for record in history:
        if record.status == "completed" and record.kind == "step" and record.step_id.startswith(_LIST):
            try:
                listed: list[ListedTool] = _LISTED.decode(record.output or "null", step=record.key)
            except SerializationError:  # a step of the user's that has such a name
                continue
            for each in listed:
                if each.name == tool:
                    return each
    return None


def _json(arguments: JSONObject) -> JSONObject:
    _, kept = _ARGUMENTS.round_trip(arguments, step="", limit=None, redact=str)
    found: JSONObject = kept
    return found


def _tool_of(desk: Desk, asked: PendingApproval) -> Tool:
    """The tool that is asked about: of the run's agent, or the only one of its name that this backend knows."""
    own = desk.functions.get(asked.function)
    agents = [own] if isinstance(own, Agent) else desk.functions.values()
    found = [each.tools[asked.tool] for each in agents if isinstance(each, Agent) and asked.tool in each.tools]
    if len({id(each) for each in found}) != 1:
        raise SerializationError(
            f"changed arguments cannot be checked here: this backend knows {len(found)} tools {asked.tool!r}. Give it "
            "the agent that has the tool: functions=[...]",
            step=asked.step,
        )
    return found[0]


def request_id(approval: str | PendingApproval | ApprovalRequest) -> str:
    """The id of a question, from what a program has of it."""
    if isinstance(approval, PendingApproval):
        return approval.id
    return approval.approval if isinstance(approval, ApprovalRequest) else approval
