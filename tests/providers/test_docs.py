"""The examples of docs/providers.md work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from durably.core import ModelError, user
from durably.testing import call
from durably.testing.models.llm_server import Fault, LLMServer
from tests.providers.cases import question
from tests.providers.subjects import ENV

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_runs() -> None:
    names: dict[str, Any] = {"__name__": "providers_page"}
    for block in BLOCKS:
        exec(compile(block, "docs/providers.md", "exec", dont_inherit=True), names)


def test_the_provider_has_forty_lines() -> None:
    [block] = [block for block in BLOCKS if "class HouseModel" in block]
    assert len(block.splitlines()) <= 40


@pytest.mark.asyncio
async def test_the_provider_works() -> None:
    names: dict[str, Any] = {"__name__": "providers_page"}
    exec(
        compile(next(block for block in BLOCKS if "class HouseModel" in block), "docs", "exec", dont_inherit=True),
        names,
    )
    async with LLMServer(call("weather", city="Köln")) as server:
        model = names["HouseModel"]("m", server.openai_url, names["Key"](env=ENV))
        response = await model.complete(question(user("Weather?")))
        assert response.message.tool_calls[0].arguments == {"city": "Köln"}
        assert response.request_id
        assert response.request_id.startswith("req_")
        for fault, retriable in (
            (Fault.answer(429, retry_after="2"), True),
            (Fault.answer(400), False),
            (Fault.cut(), True),
        ):
            server.fail(fault)
            with pytest.raises(ModelError) as raised:
                await model.complete(question(user("Weather?")))
            assert raised.value.retriable is retriable
            assert raised.value.provider == "house"
