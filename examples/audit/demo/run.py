"""One demo: an agent is killed again and again and finishes anyway, and what it left behind is judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from durably.backends import SQLiteBackend, SQLiteJournal
from durably.core import AgentResult, NonDeterminismError
from durably.core.steps import Point
from durably.testing import Crash, EffectLedger, Entry, WorkerProcess, replay, restart_until_end
from durably.testing.snapshot import Snapshot
from examples.audit.corpus import Corpus
from examples.audit.demo.job import RUN_ID, Job
from examples.audit.demo.kill_plan import Kill
from examples.audit.demo.laws import Death, Evidence, Outcome, Verdict, check_laws
from examples.audit.demo.worker import work, work_unobserved
from examples.audit.demo.worker_log import StepEvent, WorkerLog
from examples.audit.report import Finding

__all__ = ["Demo", "DemoError", "Screen", "run_demo"]


class DemoError(Exception):
    """The demo could not be brought to its end; the message says why."""


@dataclass(kw_only=True)
class Demo:
    """One demo, while it runs and afterwards.

    Attributes:
        job: What is audited.
        corpus: The files.
        kills: When a process is to be killed, in order.
        workers: The processes so far.
        starts: The starts of bodies, by the ledger.
        result: What the agent answered.
        findings: The report.
        evidence: What the laws are judged on.
        verdicts: The laws, judged.
        seconds: How long it took.
    """

    job: Job
    corpus: Corpus
    kills: Sequence[Kill]
    workers: list[WorkerLog] = field(default_factory=list)
    starts: list[Entry] = field(default_factory=list)
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
        return list(dict.fromkeys(event.step for worker in self.workers for event in worker.events if event.step))


class Screen(Protocol):
    """Where a demo is shown while it runs."""

    def begin(self, demo: Demo) -> None:
        """Called once, before the first process."""

    def show(self, demo: Demo, worker: WorkerLog, event: StepEvent | None) -> None:
        """Called for each thing that a process does, and with ``None`` when it is gone."""

    def end(self) -> None:
        """Called once, also when the demo fails."""


def run_demo(job: Job, corpus: Corpus, kills: Sequence[Kill], screen: Screen) -> Demo:
    """Run the agent, kill it as planned, let it go on, and judge what it left behind.

    Args:
        job: What to audit.
        corpus: What is in the copy.
        kills: When to kill its process.
        screen: Where it is shown.

    Raises:
        DemoError: If a worker failed by itself.
    """
    began = time.monotonic()
    demo = Demo(job=job, corpus=corpus, kills=kills)
    comparison = _start_uninterrupted(job) if job.model is None else None
    try:
        screen.begin(demo)
        deaths = _run_and_kill(demo, screen)
        uninterrupted = None if comparison is None else _finish(*comparison)
    finally:
        screen.end()
        for process in [*(worker.process for worker in demo.workers), *([comparison[1]] if comparison else [])]:
            process.end()
    _judge(demo, deaths, uninterrupted)
    demo.seconds = time.monotonic() - began
    return demo


def _run_and_kill(demo: Demo, screen: Screen) -> list[Death]:
    """One process after the other, until one is not killed."""
    deaths: list[Death] = []
    for process in _processes(demo):
        worker = WorkerLog(process)
        demo.workers.append(worker)
        for event in worker.follow():
            screen.show(demo, worker, event)
        screen.show(demo, worker, None)
        if process.was_killed:
            deaths.append(_note_death(demo.job, worker))
            time.sleep(2 * demo.job.pace)  # for whoever watches; the next process does not need it
    _check_end(demo.job, demo.workers[-1].process)
    return deaths


def _processes(demo: Demo) -> Iterator[WorkerProcess]:
    crashes = [kill.crash for kill in demo.kills]
    try:
        yield from restart_until_end(lambda number, left: _start(demo, number, left), crashes)
    except RuntimeError as error:
        raise DemoError(str(error)) from error


def _start(demo: Demo, number: int, left: Sequence[Crash]) -> WorkerProcess:
    kill = demo.kills[len(demo.kills) - len(left)] if left else None
    kill_data = None if kill is None else kill.model_dump(mode="json")
    job_data = demo.job.model_dump(mode="json")
    return WorkerProcess.start(work, job_data, kill_data, crashes=left, number=number, log=demo.job.log)


def _note_death(job: Job, worker: WorkerLog) -> Death:
    process = worker.process
    snapshot = Snapshot.of_journal(SQLiteJournal(job.journal))
    worker.note_committed(snapshot.records())
    ledger = EffectLedger(job.ledger)
    # In this order: a commit that the process had no time to note came before its death.
    ledger.add_commits(snapshot.records())
    ledger.crashed(process.crash or Point("", "", RUN_ID, ""))
    return Death(process=process.number, crash=process.crash, before=snapshot)


def _check_end(job: Job, process: WorkerProcess) -> None:
    if process.returncode == 0:
        return
    if process.error:
        raise DemoError(f"the agent failed: {process.error}")
    log = "\n".join(job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:])
    code = process.returncode
    raise DemoError(f"process {process.number} ended by itself with code {code}: {log or 'it said nothing'}")


def _start_uninterrupted(job: Job) -> tuple[Job, WorkerProcess]:
    """The same work in a folder of its own, which nobody kills; it runs beside the demo."""
    # Nobody follows this process until the demo is over, so it must report no points: a full pipe would stop it.
    beside = job.model_copy(update={"folder": job.folder / "not-killed", "pace": 0.0})
    beside.folder.mkdir()
    return beside, WorkerProcess.start(work_unobserved, beside.model_dump(mode="json"), log=beside.log)


def _finish(job: Job, process: WorkerProcess) -> Outcome:
    process.wait()
    _check_end(job, process)
    return asyncio.run(_outcome(job))


async def _outcome(job: Job) -> Outcome:
    async with SQLiteBackend(job.journal, functions=[job.agent()]) as backend:
        result: AgentResult = await (await backend.run(RUN_ID)).result()
    return Outcome(result=result, report=job.report.lines(), after=Snapshot.of_journal(SQLiteJournal(job.journal)))


def _judge(demo: Demo, deaths: Sequence[Death], uninterrupted: Outcome | None) -> None:
    job = demo.job
    outcome = asyncio.run(_outcome(job))
    ledger = EffectLedger(job.ledger)
    demo.starts = ledger.of("started")
    demo.result = outcome.result
    demo.findings = job.report.findings()
    demo.evidence = Evidence(
        planned=[kill.crash for kill in demo.kills],
        deaths=deaths,
        ledger=ledger.entries,
        outcome=outcome,
        uninterrupted=uninterrupted,
        replayed=asyncio.run(_replayed(job, outcome)),
    )
    demo.verdicts = check_laws(demo.evidence)


async def _replayed(job: Job, outcome: Outcome) -> AgentResult | None:
    """What the agent's code comes to over the records alone, where no body can run."""
    try:
        result: AgentResult = await replay(outcome.history, [job.agent()])
    except NonDeterminismError:
        return None
    return result
