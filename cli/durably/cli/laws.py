"""What must hold after an agent was killed, checked on what was left behind: ledger, journal, report, traces."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from durably.cli.kills import Kill
from durably.cli.ledger import Start
from durably.core import AgentResult
from durably.core.history import StepRecord

__all__ = ["Crash", "Evidence", "Outcome", "Verdict", "check_laws"]


@dataclass(frozen=True, kw_only=True)
class Crash:
    """One process that was killed.

    Attributes:
        process: Its number.
        kill: The point and the step of a planned kill; ``None`` if somebody else did it.
        in_flight: The steps whose bodies it had begun and not committed.
        journal: The records there were when it was gone.
    """

    process: int
    kill: tuple[str, str] | None
    in_flight: frozenset[str]
    journal: Sequence[StepRecord]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        result: What the agent returned.
        report: The lines of the report.
        journal: All records.
    """

    result: AgentResult
    report: Sequence[dict[str, str]]
    journal: Sequence[StepRecord]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a run.

    Attributes:
        planned: The kills that were to happen.
        crashes: Those that did, in order.
        starts: The ledger.
        outcome: How the run ended.
        straight: How the same run ended that nobody killed; ``None`` where a model answers differently each time.
        replayed: What the records alone give when the agent's code runs over them.
    """

    planned: Sequence[Kill]
    crashes: Sequence[Crash]
    starts: Sequence[Start]
    outcome: Outcome
    straight: Outcome | None
    replayed: AgentResult | None


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


def _kills(evidence: Evidence) -> Verdict:
    happened = [crash.kill[0] for crash in evidence.crashes if crash.kill is not None]
    planned = [kill.point for kill in evidence.planned]
    verdict = Verdict(law="Every planned SIGKILL came about", proof=f"{len(happened)} of {len(planned)}")
    verdict.broken += [f"never came about: {point}" for point in planned[len(happened) :]]
    if happened != planned[: len(happened)]:
        verdict.broken.append(f"killed at {', '.join(happened)} instead of {', '.join(planned)}")
    return verdict


def _no_body_after_commit(evidence: Evidence) -> Verdict:
    # By what the journal held when each process was gone, not by the clock, which may be set back.
    committed = {record.key for record in evidence.outcome.journal if record.key and record.final}
    verdict = Verdict(law="No body started after its commit")
    verdict.proof = f"{len(evidence.starts)} starts, {len(committed)} records"
    known = {crash.process: {record.key for record in crash.journal if record.final} for crash in evidence.crashes}
    seen: Counter[tuple[str, int]] = Counter()
    for start in evidence.starts:
        seen[start.step, start.process] += 1
        earlier = any(start.step in keys for process, keys in known.items() if process < start.process)
        if earlier or seen[start.step, start.process] > 1 + _retries(evidence, start.step):
            verdict.broken.append(f"{start.step} started again in process {start.process}")
    unknown = {start.step for start in evidence.starts} ^ committed
    verdict.broken += [f"{step}: in the ledger or in the journal, not in both" for step in sorted(unknown)]
    return verdict


def _retries(evidence: Evidence, step: str) -> int:
    return sum(record.key == step and record.status == "retrying" for record in evidence.outcome.journal)


def allowed_starts(evidence: Evidence, step: str) -> int:
    """One, and one more for each crash in the step's window and each recorded retry."""
    crashes = sum(step in crash.in_flight for crash in evidence.crashes)
    return 1 + crashes + _retries(evidence, step)


def _no_needless_start(evidence: Evidence) -> Verdict:
    counts = Counter(start.step for start in evidence.starts)
    again = sum(counts.values()) - len(counts)
    verdict = Verdict(law="Starts of a step <= 1 + crashes in its window + retries")
    verdict.proof = f"{again} again"
    for step, count in counts.items():
        if count > (allowed := allowed_starts(evidence, step)):
            verdict.broken.append(f"{step} started {count} times, {allowed} can be explained")
    return verdict


def _one_key_a_step(evidence: Evidence) -> Verdict:
    keys, attempts = defaultdict(set), defaultdict(list)
    for start in evidence.starts:
        keys[start.step].add(start.key)
        attempts[start.step].append(start.attempt)
    verdict = Verdict(law="One idempotency key a step, one attempt number a start")
    verdict.proof = f"{len(keys)} keys"
    verdict.broken += [f"{step} saw {len(seen)} keys" for step, seen in keys.items() if len(seen) > 1]
    verdict.broken += [f"{step} saw attempts {seen}" for step, seen in attempts.items() if len({*seen}) < len(seen)]
    if len(set().union(*keys.values())) < len(keys):
        verdict.broken.append("two steps shared a key")
    return verdict


def _findings_once(evidence: Evidence) -> Verdict:
    asked: Counter[str] = Counter()
    refused = {m.call_id for m in evidence.outcome.result.messages if m.role == "tool" and m.is_error}
    for message in evidence.outcome.result.messages:
        if message.role == "assistant":
            for call in message.tool_calls:
                if call.name == "add_findings" and call.id not in refused and isinstance(call.arguments, dict):
                    asked.update(_title_and_detail(each) for each in call.arguments["findings"])
    there = Counter(_title_and_detail(line) for line in evidence.outcome.report)
    verdict = Verdict(law="Each finding is in the report exactly once", proof=f"{sum(there.values())} findings")
    verdict.broken += [f"missing: {each}" for each in sorted((asked - there).elements())]
    verdict.broken += [f"twice, or never asked for: {each}" for each in sorted((there - asked).elements())]
    if not there:
        verdict.broken.append("the report is empty")
    return verdict


def _title_and_detail(finding: dict[str, Any]) -> str:
    return f"{finding['title']}: {finding['detail']}"


def _journal_only_grew(evidence: Evidence) -> Verdict:
    journal = list(evidence.outcome.journal)
    verdict = Verdict(law="The journal only ever grew", proof=f"{len(journal)} records")
    for crash in evidence.crashes:
        if journal[: len(crash.journal)] != list(crash.journal):
            verdict.broken.append(f"it changed after process {crash.process} was killed")
    return verdict


def _same_as_replay(evidence: Evidence) -> Verdict:
    verdict = Verdict(law="The records alone give the result again", proof="replayed")
    if evidence.replayed != evidence.outcome.result:
        verdict.broken.append("the agent's code, run over the records, came to another result")
    return verdict


def _same_as_straight(evidence: Evidence) -> Verdict:
    verdict = Verdict(law="All as in a run nobody killed")
    straight, outcome = evidence.straight, evidence.outcome
    if straight is None:
        verdict.skipped = True
        verdict.proof = "not compared: a real model answers differently each time"
        return verdict
    verdict.proof = f"{len(_outputs(outcome.journal))} outputs, result, report"
    if outcome.result != straight.result or outcome.result.messages != straight.result.messages:
        verdict.broken.append("the results differ")
    if list(outcome.report) != list(straight.report):
        verdict.broken.append("the reports differ")
    mine, theirs = _outputs(outcome.journal), _outputs(straight.journal)
    different = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    verdict.broken += [f"the records of {key or 'the run'} differ" for key in different]
    return verdict


def _outputs(journal: Sequence[StepRecord]) -> dict[str, tuple[Any, ...]]:
    return {record.key: (record.kind, record.status, record.output) for record in journal if record.final}


_LAWS: list[Callable[[Evidence], Verdict]] = [
    _kills,
    _no_body_after_commit,
    _no_needless_start,
    _one_key_a_step,
    _findings_once,
    _journal_only_grew,
    _same_as_replay,
    _same_as_straight,
]
