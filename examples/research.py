"""Research: an agent splits a question, other agents look into the parts at the same time, and it writes a report.

Its models answer from a script, so it runs without a key::

    $ python examples/research.py
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from durably.backends import SQLiteBackend
from durably.core import Agent, AgentInput, Model, ToolContext, ToolError, delegate, tool
from durably.core.messages import ToolResultMessage, UserMessage
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call

__all__ = ["LIBRARY", "QUESTION", "Brief", "Finding", "Report", "build", "script"]

LIBRARY = {
    "tea": "Tea is grown in the hills; the first harvest is in April.",
    "coffee": "Coffee wants warmth; the beans are picked by hand.",
    "cocoa": "Cocoa grows in the shade; its pods ripen all year.",
}
"""Stands for the web."""

QUESTION = "How do tea, coffee and cocoa differ in their harvest?"


@dataclass
class Brief:
    """Whom the research is for. It reaches every agent, and the models do not choose it.

    Attributes:
        audience: Who will read it.
        shelf: The only topics that these readers may see.
    """

    audience: str
    shelf: list[str]


class Finding(BaseModel):
    """What was found out about one topic."""

    topic: str
    text: str


class Report(BaseModel):
    """The answer."""

    title: str
    findings: list[Finding]


@tool(effect="pure")
async def read(topic: str, ctx: ToolContext[Brief]) -> str:
    """Read what the library has on a topic."""
    if topic not in ctx.context.shelf:
        raise ToolError(f"readers like {ctx.context.audience} see nothing on {topic}")
    return LIBRARY[topic]


def build(model: Model, helper: Model) -> Agent[Report, Brief]:
    """The agent that asks, with the one that it asks, once for each part of a question.

    Args:
        model: What splits the question, and writes the report.
        helper: What looks into one part.
    """

    def for_readers(ctx: ToolContext[Brief]) -> str:
        return f"Look into one topic, for {ctx.context.audience}. Read before you answer."

    researcher = Agent(
        "researcher", model=helper, instructions=for_readers, tools=[read], context_type=Brief, max_iterations=5
    )
    ask = delegate(researcher, name="research", description="Have one topic looked into.", timeout="10m")
    return Agent(
        "lead",
        model=model,
        instructions="Split the question into topics, have all of them looked into at once, and write a report.",
        tools=[ask],
        output_type=Report,
        context_type=Brief,
    )


def script() -> tuple[ScriptedModel, ScriptedModel]:
    """What the models might say."""

    def lead(request: ModelRequest) -> Any:
        if isinstance(request.messages[-1], UserMessage):
            return [call("research", task=topic) for topic in LIBRARY]
        found = [each.content for each in request.messages if isinstance(each, ToolResultMessage)]
        findings = [Finding(topic=topic, text=str(text)) for topic, text in zip(LIBRARY, found, strict=True)]
        return Report(title="Three harvests", findings=findings).model_dump_json()

    def researcher(request: ModelRequest) -> Any:
        last = request.messages[-1]
        if isinstance(last, UserMessage):
            return call("read", topic=last.content)
        return str(last.content) if isinstance(last, ToolResultMessage) else "Nothing."

    return ScriptedModel(lead), ScriptedModel(researcher)


async def main(directory: Path) -> None:
    """Ask one question, and print the report."""
    agent = build(*script())
    async with SQLiteBackend(directory / "runs.db", [agent]) as backend:
        brief = Brief(audience="growers", shelf=["tea", "coffee"])
        result = await backend.invoke(agent, AgentInput(message=QUESTION, context=brief))
    report = result.output
    assert report is not None
    print(report.title)
    for finding in report.findings:
        print(f"- {finding.topic}: {finding.text}")
    print(f"{result.usage.input_tokens + result.usage.output_tokens} tokens, those of the researchers included")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
