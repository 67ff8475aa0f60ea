"""Crash one agent on several libraries, and show what came of it.

Called as: python -m tests.benchmarks.foreign [NAME ...] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from durably.testing.crash.report import Report
from durably.testing.crash.terminal import print_report, progress_bar
from durably.testing.foreign import foreign_matrix
from tests.benchmarks.foreign.world import mailed, state

AGENTS = {
    "durably": ("durably_agent", []),
    "plain-loop": ("plain_loop", []),
    "langgraph": ("langgraph_agent", ["langgraph", "langgraph-checkpoint-sqlite"]),
    "dbos": ("dbos_agent", ["pydantic-ai-slim", "dbos"]),
    "openai-agents": ("openai_agent", ["openai-agents"]),
}
"""The module of each agent, and the packages whose versions are told."""


def crash(name: str) -> Report:
    """The matrix of one of them."""
    module, packages = AGENTS[name]
    agent = importlib.import_module(f"tests.benchmarks.foreign.{module}")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    engine = f"{agent.ENGINE} ({versions})" if versions else str(agent.ENGINE)
    with progress_bar() as progress:
        return foreign_matrix(
            agent.start, agent.resume, name=name, engine=engine, state=state, events=mailed, progress=progress
        )


def main() -> int:
    """Print each report, and write its page if asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.foreign")
    parser.add_argument("names", nargs="*", choices=[*AGENTS, []], help="which agents; left out, all")
    parser.add_argument("--pictures", type=Path, help="a folder for one HTML page each")
    asked = parser.parse_args()
    console = Console()
    console.print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}")
    for name in asked.names or AGENTS:
        report = crash(name)
        print_report(report, console)
        if asked.pictures is not None:
            asked.pictures.mkdir(parents=True, exist_ok=True)
            report.to_html(asked.pictures / f"{name}.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
