"""The page, served for a while on a port of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from durably.cli.address import Program
from durably.core import Backend
from durably.ui.serve import serve


@asynccontextmanager
async def served(backend: Backend, **options: Any) -> AsyncIterator[str]:
    """Serve the page for an open engine; the address."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(Program(backend, backend.functions), ready=address.set_result, **options))
    try:
        yield await address
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
