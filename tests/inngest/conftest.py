"""A protocol harness for each test, and backends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durably.backends.inngest import InngestBackend
from durably.core import Function
from durably.testing.inngest import InngestEngine

OpenInngest = Callable[..., InngestBackend]


@pytest.fixture
def engine() -> InngestEngine:
    return InngestEngine(backoff=1.0)


@pytest.fixture
def open_inngest(engine: InngestEngine) -> OpenInngest:
    """Makes a backend whose app the engine calls over ASGI."""

    def open_one(*functions: Function[Any, Any], **options: Any) -> InngestBackend:
        return InngestBackend(
            engine.client(), functions, serve=engine.serve, now=engine.now, poll=0.001, grace=0.5, **options
        )

    return open_one
