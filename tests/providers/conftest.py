"""What the provider suites share: a key, every provider, streamed and not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.providers.cases import CASES, KEY, Case, close_litellm
from tests.providers.subjects import ENV


@pytest.fixture(autouse=True, scope="session")
def key() -> Iterator[str]:
    """The key, where every model of the suites finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV, KEY)
        yield KEY


@pytest_asyncio.fixture(autouse=True)
async def closed(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """No client of litellm's is left open in a loop that ends."""
    yield
    if "litellm" in request.node.name:
        await close_litellm()


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def case(request: pytest.FixtureRequest) -> Case:
    """Every provider."""
    found: Case = request.param
    return found


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    """Both ways to be answered."""
    return bool(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pass what litellm's code warns of in itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "litellm" in item.name:
            for kind in ("DeprecationWarning", "UserWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
