"""Audit a directory. End this process at any moment and start it again: it goes on after the last recorded step.

$ python -m examples.audit DIRECTORY
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import AgentResult, DurablyError, RunNotFoundError, SQLiteSessions
from examples.audit.agent import audit_agent, question
from examples.audit.corpus import Corpus, Root
from examples.audit.report import Report
from examples.audit.scripted import ScriptedAuditor

RUN_ID = "audit"


async def audit(directory: Path, state: Path, model: str | None) -> AgentResult:
    """Start the audit, or go on with the one that is recorded in the state folder."""
    agent = audit_agent(
        lambda: Corpus([Root(path=directory)]),
        ScriptedAuditor() if model is None else model,
        Report(state / "report.jsonl"),
        sessions=SQLiteSessions(state / "sessions.db"),
    )
    async with SQLiteBackend(state / "runs.db", functions=[agent]) as backend:
        try:
            run = await backend.run(RUN_ID)
            print(f"{state} holds an audit: this one goes on with it. To begin another one, delete the folder.")
        except RunNotFoundError:
            run = await backend.start(agent, question(str(directory)), run_id=RUN_ID)
        result: AgentResult = await run.result()
        return result


def show(result: AgentResult, report: Report) -> None:
    """Print the findings and the answer."""
    for finding in report.findings():
        where = f" ({finding.where})" if finding.where else ""
        print(f"- {finding.title}: {finding.detail}{where}")
    print(result.text)


def main() -> None:
    """Read the options and audit."""
    parser = argparse.ArgumentParser(prog="python -m examples.audit", description="Audit a directory of text.")
    parser.add_argument("directory", type=Path, help="what to audit; it is only read")
    parser.add_argument("--state", type=Path, default=Path(".durably/audit"), help="a folder for what is recorded")
    parser.add_argument("--model", metavar="PROVIDER:NAME", help="a real model in the place of the scripted one")
    options = parser.parse_args()
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is not a directory")
    options.state.mkdir(parents=True, exist_ok=True)
    try:
        result = asyncio.run(audit(options.directory.resolve(), options.state, options.model))
    except DurablyError as error:
        sys.exit(f"the audit failed: {error}")
    show(result, Report(options.state / "report.jsonl"))


if __name__ == "__main__":
    main()
