"""What a model writes, what a tool returns and what is defined, as on the engines of this library, on Inngest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from durably.backends.inngest import InngestBackend
from durably.core import Function
from tests.core.everywhere import cases_for
from tests.inngest.conftest import OpenInngest

globals().update(cases_for("open_on_inngest"))


@pytest.fixture
def open_on_inngest(open_inngest: OpenInngest) -> Callable[..., InngestBackend]:
    def open_one(functions: Sequence[Function[Any, Any]], **options: Any) -> InngestBackend:
        return open_inngest(*functions, **options)

    return open_one
