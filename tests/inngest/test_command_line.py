"""What the command line sees of the runs of an app on Inngest, named by the program's own backend."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from durably.cli.address import open_program
from durably.core import RunStatus
from tests.core.traced_runs import QUESTION, functions
from tests.inngest.subject import EngineSubject


@pytest.mark.asyncio
async def test_a_client_sees_the_runs_of_an_app_and_serves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = EngineSubject()
    async with subject.open(functions()) as backend:
        run = await backend.start("refund-desk", {"message": QUESTION})
        await run.result()
        monkeypatch.setitem(sys.modules, "an_app", SimpleNamespace(backend=backend))
        async with open_program("an_app:backend") as program:
            assert program.client is not backend
            listed = await program.client.runs()
            assert {each.view.function for each in listed} == {"refund-desk", "policy", "ask-person"}
            found = await program.client.run(run.id)
            assert found.status is RunStatus.COMPLETED
            assert (await found.trace()).step("tool-refund").status == "completed"
