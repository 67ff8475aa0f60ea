"""The demo: an agent is killed again and again and finishes anyway, and what it left behind is judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from durably.backends import SQLiteBackend
from durably.cli.audit import Finding, question
from durably.cli.corpus import Corpus
from durably.cli.job import RUN_ID, Job
from durably.cli.laws import Crash, Evidence, Outcome, Verdict, check_laws
from durably.cli.ledger import Ledger, Start
from durably.cli.life import Life
from durably.cli.worker import Mark
from durably.core import AgentResult, RunNotFoundError, create_agent_loop
from durably.core.history import History, StepRecord
from durably.core.replay import RecordedSteps

__all__ = ["Demo", "DemoError", "Screen", "run_demo"]

MANY = 20
"""Kills that nobody planned before the demo gives up: somebody else, or the machine, kills its workers."""


class DemoError(Exception):
    """The demo could not be brought to its end; the message says why."""


@dataclass(kw_only=True)
class Demo:
    """One demo, while it runs and afterwards.

    Attributes:
        job: What is done.
        corpus: What is audited.
        lives: The processes so far.
        starts: The ledger.
        result: What the agent answered.
        findings: The report.
        evidence: What the laws are judged on.
        verdicts: The laws, judged.
        seconds: How long it took.
    """

    job: Job
    corpus: Corpus
    lives: list[Life] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    result: AgentResult | None = None
    findings: list[Finding] = field(default_factory=list)
    evidence: Evidence | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every law held."""
        return bool(self.verdicts) and all(verdict.held for verdict in self.verdicts)

    @property
    def steps(self) -> list[str]:
        """The step keys, in the order they were met."""
        return list(dict.fromkeys(mark.step for life in self.lives for mark in life.marks if mark.step))


class Screen(Protocol):
    """Where a demo is shown while it runs."""

    def begin(self, demo: Demo) -> None:
        """Called once, before the first process."""

    def show(self, demo: Demo, life: Life, mark: Mark | None) -> None:
        """Called when a process was started, for each thing it tells, and with ``None`` when it is gone."""

    def end(self) -> None:
        """Called once, also when the demo fails."""


def run_demo(job: Job, corpus: Corpus, screen: Screen) -> Demo:
    """Run the agent, kill it as planned, let it go on, and judge what it left behind.

    Args:
        job: What to do.
        corpus: What is in the copy.
        screen: Where it is shown.

    Raises:
        DemoError: If a worker failed by itself.
    """
    began = time.monotonic()
    demo = Demo(job=job, corpus=corpus)
    job.save()
    straight = _start_straight(job) if job.model is None else None
    try:
        screen.begin(demo)
        crashes = _live_and_die(demo, screen)
        calm = None if straight is None else _finish_straight(*straight)
    finally:
        screen.end()
        for life in [*demo.lives, *([straight[1]] if straight else [])]:
            life.end()
    outcome = asyncio.run(_outcome(job))
    demo.starts = Ledger.read(job.ledger)
    demo.result = outcome.result
    demo.findings = job.report.findings()
    demo.evidence = Evidence(
        planned=job.kills,
        crashes=crashes,
        starts=demo.starts,
        outcome=outcome,
        straight=calm,
        replayed=_replayed(job, outcome.journal),
    )
    demo.verdicts = check_laws(demo.evidence)
    demo.seconds = time.monotonic() - began
    return demo


def _live_and_die(demo: Demo, screen: Screen) -> list[Crash]:
    """One process after the other, until one is not killed."""
    job = demo.job
    crashes: list[Crash] = []
    while True:
        planned = sum(crash.kill is not None for crash in crashes)
        life = Life(job, len(demo.lives) + 1, planned)
        demo.lives.append(life)
        for mark in life.follow():
            screen.show(demo, life, mark)
        screen.show(demo, life, None)
        if not life.was_killed:
            break
        kill, journal = life.kill, asyncio.run(_journal(job))
        life.committed = {record.key: record.took for record in journal if record.final}
        crashes.append(
            Crash(
                process=life.number,
                kill=None if kill is None else (kill.point, kill.step),
                in_flight=frozenset(life.in_flight),
                journal=journal,
            )
        )
        time.sleep(2 * job.pace)  # for whoever watches; the next process does not need it
        if len(crashes) - planned > MANY:
            raise DemoError(f"the workers were killed {len(crashes)} times; something else kills them")
    _check_end(life, job)
    return crashes


def _check_end(life: Life, job: Job) -> None:
    if life.code == 0:
        return
    failure = next((mark.text for mark in life.marks if mark.what == "failed"), "")
    if failure:
        raise DemoError(f"the agent failed: {failure}")
    log = "\n".join(job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:])
    raise DemoError(f"process {life.number} ended by itself with code {life.code}: {log or 'it said nothing'}")


def _start_straight(job: Job) -> tuple[Job, Life]:
    """The same work in a folder of its own, which nobody kills; it runs beside the demo."""
    calm = job.model_copy(update={"folder": job.folder / "not-killed", "kills": [], "pace": 0.0})
    calm.save()
    return calm, Life(calm, 1, 0)


def _finish_straight(job: Job, life: Life) -> Outcome:
    for _ in life.follow():
        pass
    _check_end(life, job)
    return asyncio.run(_outcome(job))


async def _journal(job: Job) -> Sequence[StepRecord]:
    async with SQLiteBackend(job.journal) as backend:
        try:
            return (await (await backend.run(RUN_ID)).history()).records
        except RunNotFoundError:
            return ()


async def _outcome(job: Job) -> Outcome:
    async with SQLiteBackend(job.journal, functions=[job.agent(0)]) as backend:
        run = await backend.run(RUN_ID)
        return Outcome(result=await run.result(), report=job.report.lines(), journal=(await run.history()).records)


def _replayed(job: Job, journal: Sequence[StepRecord]) -> AgentResult | None:
    """What the agent's code comes to over the records alone, where no body can run."""
    asked = question(job.label)
    loop = create_agent_loop(job.agent(0), asked.message, session_key=asked.session_key)
    return asyncio.run(loop(RecordedSteps(History(journal)), None))
