"""What the demo says before it begins and after it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from durably.testing import Entry
from examples.audit.demo.laws import Verdict
from examples.audit.demo.run import Demo
from examples.audit.demo.table import clean, table_of
from examples.audit.demo.table_cells import describe_end
from examples.audit.demo.worker_log import WorkerLog
from examples.audit.report import Finding

__all__ = ["as_json", "conclude", "introduce"]

TABLE_WIDTH = 60

TIMES = ["never", "once", "twice", "three times", "four times", "five times", "six times"]


def introduce(console: Console, demo: Demo) -> None:
    """Say what will happen, and who answers in the place of a model."""
    job, corpus = demo.job, demo.corpus
    count = len(demo.kills)
    times = TIMES[count] if count < len(TIMES) else f"{count} times"
    plan = f"That process is killed with SIGKILL {times}, and each time a fresh one goes on by itself."
    size = f"{corpus.bytes:,} bytes in {_count(len(corpus.texts), 'file')}"
    console.print()
    _say(
        console,
        Text("durably demo", style="bold").append(": an agent audits ", style="not bold"),
        f"{clean(job.label)}, {size}. It works in a child process on a SQLite file. "
        + (plan if count else "Nobody kills it this time."),
    )
    if corpus.missing:
        _say(console, Text("Left out: ", style="yellow"), corpus.missing + ".")
    if job.model is None:
        pace = f" Each answer takes {job.pace:g} s, for you to follow." if job.pace else ""
        said = f"fixed rules decide, no language model is asked.{pace} A real one: --model anthropic:NAME"
        _say(console, Text("The model is scripted: ", style="yellow"), said)
    else:
        _say(console, Text(f"The model is {job.model}. ", style="yellow"), "What it reads of the files is sent to it.")
    console.print()


def conclude(console: Console, demo: Demo) -> None:
    """Show the table with the ledger, the kills, the answer, the report and the laws."""
    if console.width >= TABLE_WIDTH:
        console.print(table_of(demo, console, ledger=True), crop=False)
        console.print()
        _say(console, Text("replayed", style="bold"), ": read back from the journal; the body did not run.")
        _say(console, Text("ran", style="bold"), ": how often the body started, by the ledger that the bodies wrote.")
    else:
        counts = Counter(start.key for start in demo.starts)
        _section(console, "Starts of each body, by the ledger", [(f"{n}", "bold", step) for step, n in counts.items()])
    workers = [(f"{each.number}", "bold", f"pid {each.process.pid}: {_worker(each)}") for each in demo.workers]
    _section(console, "Processes", workers)
    if demo.result is not None:
        _section(console, "Answer", [("", "", clean(demo.result.text))])
    _section(console, "Report", [(each.title, "bold", _finding(each)) for each in demo.findings])
    _section(console, "Laws", [(*_judged(verdict), _verdict(verdict)) for verdict in demo.verdicts])
    _last_line(console, demo)


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def _section(console: Console, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """A title, and rows of a name, its style, and what there is to say."""
    console.print()
    console.print(Text(f" {title}", style="bold underline"))
    if not rows:
        console.print(Text("   nothing", style="dim"))
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    width = min(max(len(name) for name, _, _ in rows), max(8, console.width // 3))
    grid.add_column(width=width)
    grid.add_column()
    for name, style, said in rows:
        grid.add_row(Text(clean(name), style=style), Text(said))
    console.print(Padding(grid, (0, 1, 0, 3) if width else (0, 1, 0, 1)))


def _worker(worker: WorkerLog) -> str:
    if worker.number == 1 or worker.first_work is None:
        return describe_end(worker)
    return f"at work after {worker.first_work:.1f} s, then {describe_end(worker)}"


def _finding(finding: Finding) -> str:
    where = f" ({finding.where})" if finding.where else ""
    return clean(finding.detail) + clean(where)


def _judged(verdict: Verdict) -> tuple[str, str]:
    if verdict.skipped:
        return "-", "yellow"
    return ("held", "green") if verdict.held else ("BROKEN", "bold red")


def _verdict(verdict: Verdict) -> str:
    proof = f" ({verdict.proof})" if verdict.proof else ""
    return clean("\n".join([verdict.law + proof, *verdict.broken]))


def _last_line(console: Console, demo: Demo) -> None:
    broken = sum(not verdict.held for verdict in demo.verdicts)
    kills = sum(worker.process.was_killed for worker in demo.workers)
    starts = f"{len(demo.starts)} starts of {len(demo.steps)} steps"
    said = f"{_count(kills, 'kill')}, {_count(len(demo.workers), 'process')}, {starts}, {demo.seconds:.1f} s."
    console.print()
    if broken:
        _say(
            console,
            Text(f"{broken} broken {'law' if broken == 1 else 'laws'}. ", style="bold red"),
            said,
        )
    else:
        _say(
            console, Text("The agent finished anyway. " if kills else "The agent finished. ", style="bold green"), said
        )


def _say(console: Console, first: Text, rest: str, indent: int = 1) -> None:
    text = Text().append_text(first).append(rest)
    for line in text.wrap(console, max(20, console.width - indent - 1)):
        line.rstrip()
        console.print(Text(" " * indent).append_text(line), soft_wrap=True)


def as_json(demo: Demo) -> dict[str, Any]:
    """The whole demo as JSON data."""
    return {
        "ok": demo.ok,
        "audited": demo.job.label,
        "files": len(demo.corpus.texts),
        "bytes": demo.corpus.bytes,
        "left_out": dict(sorted(demo.corpus.left_out.items())),
        "model": demo.job.model or "scripted",
        "processes": [_process_as_json(worker) for worker in demo.workers],
        "starts": [_start_as_json(start) for start in demo.starts],
        "answer": demo.result.text if demo.result else None,
        "findings": [finding.model_dump() for finding in demo.findings],
        "laws": [
            {"law": each.law, "held": each.held, "skipped": each.skipped, "proof": each.proof, "broken": each.broken}
            for each in demo.verdicts
        ],
        "seconds": round(demo.seconds, 3),
    }


def _process_as_json(worker: WorkerLog) -> dict[str, Any]:
    process = worker.process
    return {
        "number": process.number,
        "pid": process.pid,
        "killed": process.was_killed,
        "point": process.crash.name if process.crash else None,
        "step": process.crash.key if process.crash else None,
        "seconds": round(process.seconds, 3),
    }


def _start_as_json(start: Entry) -> dict[str, Any]:
    return {
        "run": start.run_id,
        "step": start.key,
        "attempt": start.attempt,
        "key": start.idempotency_key,
        "process": start.life + 1,
        "pid": start.pid,
        "at": start.time,
    }
