"""The pages on Temporal, and the README's agent, run against a real server."""

from __future__ import annotations

import asyncio
import sys
import types
from difflib import ndiff
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends import MemoryBackend
from durably.backends.temporal import TemporalBackend
from durably.core import Backend
from durably.core.history import History
from durably.core.ids import new_id
from tests.temporal.conftest import server_binary
from tests.test_docs import ROOT, blocks, run_page

PAGES = sorted(page.name for page in (ROOT / "docs").glob("temporal*.md") if blocks(page))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = {"localhost:7233": temporal_address, "temporal-test-server": server_binary("temporal-test-server")}
    run_page(ROOT / "docs" / page, monkeypatch, **there)


ENGINES = {
    "sqlite": 'SQLiteBackend("runs.db", functions=[support])',
    "memory": "MemoryBackend(functions=[support])",
    "temporal": "TemporalBackend(client, task_queue=queue, functions=[support])",
}


@pytest.mark.asyncio
@pytest.mark.timeout(180)
async def test_the_readmes_agent_changes_engine_by_one_line(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [(_, source), *_] = blocks(ROOT / "README.md")
    program = source.removesuffix("asyncio.run(main())\n")  # the client belongs to the loop of this test
    assert program != source
    given: dict[str, Any] = {each.__name__: each for each in (MemoryBackend, TemporalBackend, journal_of)}
    given |= {"client": client, "queue": new_id()}
    results, journals = [], []
    for engine, backend in ENGINES.items():
        changed = program.replace(ENGINES["sqlite"], backend)
        difference = [line for line in ndiff(program.splitlines(), changed.splitlines()) if line[0] in "+-"]
        assert len(difference) == (0 if engine == "sqlite" else 2), "one line gone, one new"
        # The program ends with the run: its journal is read before the backend is closed.
        keep = "\n        seen.update(result=result, journal=await journal_of(backend))"
        seen = await execute(
            f"readme_{engine}", changed.replace("\n\n    assert", f"{keep}\n\n    assert"), given, monkeypatch
        )
        results.append(seen["result"])
        journals.append([(record.key, record.kind, record.output) for record in seen["journal"].steps()])
    assert results[0] == results[1] == results[2]
    assert results[0].messages == results[1].messages == results[2].messages
    assert journals[0] == journals[1] == journals[2]
    assert [key for key, *_ in journals[0]] == ["load-context", "load-history", "think", "tool-get_order", "think:1"]


async def journal_of(backend: Backend) -> History:
    """The history of the only run; Temporal lists it a moment later."""
    while not (runs := await backend.runs()):  # noqa: ASYNC110  # asks the server
        await asyncio.sleep(0.05)
    return await runs[0].history()


async def execute(name: str, source: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the `main` of a program, as a module; what it put into `seen`."""
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    vars(module).update(given, seen={})
    exec(compile(source, name, "exec", dont_inherit=True), vars(module))
    await module.main()
    seen: dict[str, Any] = module.seen
    return seen
