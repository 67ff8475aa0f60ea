"""What must hold after the agent was killed: the library's laws over the demo's evidence, in the demo's words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from durably.core import AgentResult
from durably.core.history import History
from durably.core.steps import Point
from durably.testing import Crash, Entry, Violation, laws
from durably.testing.snapshot import Snapshot
from examples.audit.demo.job import RUN_ID

__all__ = ["Death", "Evidence", "Outcome", "Verdict", "check_laws"]


@dataclass(frozen=True, kw_only=True)
class Death:
    """One process that was killed.

    Attributes:
        process: Its number.
        crash: Where a planned kill happened; ``None`` if somebody else did it.
        before: What the journal held when it was gone.
    """

    process: int
    crash: Point | None
    before: Snapshot


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        result: What the agent returned.
        report: The lines of the report.
        after: What the journal holds.
    """

    result: AgentResult
    report: Sequence[dict[str, str]]
    after: Snapshot

    @property
    def history(self) -> History:
        """The records of the run."""
        return self.after.runs[RUN_ID].history


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a run.

    Attributes:
        planned: The kills that were to happen.
        deaths: The processes that were killed, in order.
        ledger: What bodies, commits and kills left in the ledger.
        outcome: How the run ended.
        uninterrupted: How the same run ended that nobody killed; ``None`` where a model answers differently each time.
        replayed: What the records alone give when the agent's code runs over them; ``None`` if they do not fit it.
    """

    planned: Sequence[Crash]
    deaths: Sequence[Death]
    ledger: Sequence[Entry]
    outcome: Outcome
    uninterrupted: Outcome | None
    replayed: AgentResult | None

    @property
    def starts(self) -> list[Entry]:
        """The starts of bodies."""
        return [entry for entry in self.ledger if entry.kind == "started"]


@dataclass(kw_only=True)
class Verdict:
    """Whether one law held.

    Attributes:
        law: What must hold.
        broken: How it was broken, one line each.
        proof: What was counted.
        skipped: Whether it could not be judged, with the reason in `proof`.
    """

    law: str
    broken: list[str] = field(default_factory=list)
    proof: str = ""
    skipped: bool = False

    @property
    def held(self) -> bool:
        """Whether it held."""
        return not self.broken


def check_laws(evidence: Evidence) -> list[Verdict]:
    """Judge a run by every law."""
    return [law(evidence) for law in _LAWS]


def _found(violations: Iterable[Violation]) -> list[str]:
    return [violation.found for violation in violations]


def _kills(evidence: Evidence) -> Verdict:
    happened = [death.crash.name for death in evidence.deaths if death.crash is not None]
    planned = [crash.at for crash in evidence.planned]
    verdict = Verdict(law="Every planned SIGKILL came about", proof=f"{len(happened)} of {len(planned)}")
    verdict.broken += [f"never came about: {point}" for point in planned[len(happened) :]]
    if happened != planned[: len(happened)]:
        verdict.broken.append(f"killed at {', '.join(happened)} instead of {', '.join(planned)}")
    return verdict


def _no_body_after_commit(evidence: Evidence) -> Verdict:
    starts = evidence.starts
    last_process = {start.key: start.life + 1 for start in starts}
    committed = {record.key for record in evidence.outcome.history.steps() if record.final}
    verdict = Verdict(law="No body started after its commit", proof=f"{len(starts)} starts, {len(committed)} records")
    for violation in laws.no_start_after_commit(evidence.ledger):
        verdict.broken.append(f"{violation.step} started again in process {last_process[violation.step]}")
    unrecorded = {start.key for start in starts} - committed
    only_one = {*laws.unseen_bodies(evidence.ledger, evidence.outcome.after), *unrecorded}
    verdict.broken += [f"{step}: in the ledger or in the journal, not in both" for step in sorted(only_one)]
    return verdict


def _no_needless_start(evidence: Evidence) -> Verdict:
    again = len(evidence.starts) - len({start.key for start in evidence.starts})
    return Verdict(
        law="Starts of a step <= 1 + crashes in its window + retries",
        proof=f"{again} again",
        broken=_found(laws.limited_starts(evidence.ledger, evidence.outcome.after)),
    )


def _one_key_a_step(evidence: Evidence) -> Verdict:
    keys = {start.key for start in evidence.starts}
    return Verdict(
        law="One idempotency key a step, one attempt number a start",
        proof=f"{len(keys)} keys",
        broken=_found([*laws.one_key_per_step(evidence.ledger), *laws.distinct_attempts(evidence.ledger)]),
    )


def _findings_once(evidence: Evidence) -> Verdict:
    there = Counter(_title_and_detail(line) for line in evidence.outcome.report)
    verdict = Verdict(law="Each finding is in the report exactly once", proof=f"{sum(there.values())} findings")
    verdict.broken += sorted(_found(laws.same_effects(_asked_for(evidence.outcome.result), there)))
    if not there:
        verdict.broken.append("the report is empty")
    return verdict


def _asked_for(result: AgentResult) -> Counter[str]:
    """The findings that the model gave to the tool, those it was refused aside."""
    refused = {message.call_id for message in result.messages if message.role == "tool" and message.is_error}
    calls = [call for message in result.messages if message.role == "assistant" for call in message.tool_calls]
    asked: Counter[str] = Counter()
    for call in calls:
        if call.name == "add_findings" and call.id not in refused and isinstance(call.arguments, dict):
            asked.update(_title_and_detail(each) for each in call.arguments["findings"])
    return asked


def _title_and_detail(finding: dict[str, Any]) -> str:
    return f"{finding['title']}: {finding['detail']}"


def _journal_only_grew(evidence: Evidence) -> Verdict:
    after = evidence.outcome.after
    verdict = Verdict(law="The journal only ever grew", proof=f"{len(evidence.outcome.history)} records")
    for death in evidence.deaths:
        if _found(laws.append_only(death.before, after)):
            verdict.broken.append(f"it changed after process {death.process} was killed")
    verdict.broken += _found(laws.settled_once(after))
    return verdict


def _same_as_replay(evidence: Evidence) -> Verdict:
    verdict = Verdict(law="The records alone give the result again", proof="replayed")
    if _found(laws.same_value(evidence.outcome.result, evidence.replayed)):
        verdict.broken.append("the agent's code, run over the records, came to another result")
    return verdict


def _same_as_uninterrupted(evidence: Evidence) -> Verdict:
    verdict = Verdict(law="All as in a run nobody killed")
    expected, outcome = evidence.uninterrupted, evidence.outcome
    if expected is None:
        verdict.skipped = True
        verdict.proof = "not compared: a real model answers differently each time"
        return verdict
    outputs = sum(record.final for record in outcome.history)
    verdict.proof = f"{outputs} outputs, result, report"
    results = laws.same_value(expected.result, outcome.result), laws.same_value(_messages(expected), _messages(outcome))
    if any(_found(each) for each in results):
        verdict.broken.append("the results differ")
    if _found(laws.same_outcome(_world(expected), _world(outcome))):
        verdict.broken.append("the reports differ")
    for violation in laws.same_records(expected.history, outcome.history):
        verdict.broken.append(f"the records of {violation.step or 'the run'} differ")
    return verdict


def _messages(outcome: Outcome) -> list[Any]:
    return list(outcome.result.messages)


def _world(outcome: Outcome) -> laws.Outcome:
    return laws.Outcome(status="completed", state=json.dumps(outcome.report))


_LAWS: list[Callable[[Evidence], Verdict]] = [
    _kills,
    _no_body_after_commit,
    _no_needless_start,
    _one_key_a_step,
    _findings_once,
    _journal_only_grew,
    _same_as_replay,
    _same_as_uninterrupted,
]
