"""The command line and the page on a Temporal server, named by its URL."""

from __future__ import annotations

import json

import pytest

from durably.cli.address import as_client, open_client
from durably.core import RunStatus
from tests.cli.conftest import Durably
from tests.cli.conftest import durably as durably  # the fixture
from tests.core.traced_runs import QUESTION, functions
from tests.temporal.conftest import OpenTemporal


@pytest.mark.asyncio
async def test_a_client_sees_the_runs_of_a_queue(open_temporal: OpenTemporal, temporal_address: str) -> None:
    async with open_temporal(*functions()) as backend:
        run = await backend.start("refund-desk", {"message": QUESTION})
        await run.result()
        address = f"temporal://{temporal_address}/default?task_queue={backend.task_queue}"
        async with open_client(address) as client:
            assert client.functions == {}
            found = await client.run(run.id)
            assert found.status is RunStatus.COMPLETED
            assert (await found.trace()).step("tool-refund").status == "completed"
        async with as_client(backend) as same:
            assert (await same.run(run.id)).id == run.id


def test_a_run_is_shown(durably: Durably, temporal_address: str) -> None:
    here = ("--backend", f"temporal://{temporal_address}?task_queue=nobody")
    assert json.loads(durably("runs", "--json", *here).stdout)["runs"] == []
    assert durably("show", "nobody", *here).returncode == 2
    assert "temporal answered in" in durably("doctor", *here).stdout
