"""What a model writes, what a tool returns and what is defined, as on the engines of this library, on Temporal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from durably.backends.temporal import TemporalBackend
from durably.core import Function
from tests.core.everywhere import cases_for
from tests.temporal.conftest import OpenTemporal

globals().update(cases_for("open_on_temporal"))


@pytest.fixture
def open_on_temporal(open_temporal: OpenTemporal) -> Callable[..., TemporalBackend]:
    def open_one(functions: Sequence[Function[Any, Any]], **options: Any) -> TemporalBackend:
        return open_temporal(*functions, **options)

    return open_one
