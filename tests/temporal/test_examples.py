"""The examples with crashes on Temporal: one of each kind that matters, and with ``DURABLY_LONG=1`` at every point."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Agent, AgentInput, Context, Event, Function, MemorySessions, current_step
from durably.mcp import MCPServer
from durably.testing import Report, ScriptedModel, crash_matrix
from durably.testing.crash.engines import OpenBackend, Store
from examples.audit.agent import question
from examples.audit.report import Report as Findings
from examples.chat_service.agent import support
from examples.coding_agent import CHECK, RIGHT, TASK, build, script
from examples.refund_desk import desk
from examples.reminder import make_assistant
from examples.scratch_server import make
from tests.core import test_article as article
from tests.examples import test_refund as refund
from tests.examples import test_research as research
from tests.examples.test_audit import small_audit
from tests.mcp.served import served

LONG = bool(os.environ.get("DURABLY_LONG"))

HEARTBEAT = timedelta(seconds=5 if LONG else 1)
"""Among so many crashes, a worker that a busy machine keeps from its heartbeat would be one that nobody planned."""

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(1800 if LONG else 120)]


def worker(client: Client, **resources: Any) -> OpenBackend:
    """How the backend of one life is made."""

    def temporal(functions: Sequence[Function[Any, Any]], store: Store) -> TemporalBackend:
        return TemporalBackend(
            client,
            task_queue=f"examples-{store.id}",
            functions=list(functions),
            heartbeat=HEARTBEAT,
            worker_options={"sticky_queue_schedule_to_start_timeout": timedelta(seconds=1)},
            resources=resources,
        )

    return temporal


async def crashed(target: Any, data: Any, backend: OpenBackend, *points: str, **options: Any) -> Report:
    """The matrix of an example. It is its own proof that the points are there: one that is never passed is an error."""
    report = await crash_matrix(target, data, backend=backend, points="*" if LONG else points, **options)
    assert report.ok, str(report)
    assert not report.error, str(report)
    return report


PEOPLE: Mapping[str, tuple[str, ...]] = {
    "approves": ("gather[1]/ask-refund/after_send", "tool-refund/child_started", "pay/after_effect"),
    "approves twice": ("answer/after_send",),
    "approves less": ("gather[0]/approve-refund/after_commit",),
    "denies": ("gather[0]/approve-refund/registered",),
    "says nothing": ("gather[0]/approve-refund/after_commit",),
}


@pytest.mark.parametrize("person", PEOPLE)
async def test_no_crash_pays_a_refund_twice_or_without_a_yes(client: Client, person: str) -> None:
    says, expected = refund.PEOPLE[person]
    patience = "2 days" if expected or person == "denies" else "1 second"
    await crashed(
        lambda: refund.fresh(patience=patience),
        "Money!",
        worker(client),
        *PEOPLE[person],
        functions=[refund.zoe(says)],
        state=refund.Paid(expected),
    )


async def test_no_crash_pays_a_refund_twice_or_never_while_the_bank_is_out(client: Client) -> None:
    await crashed(
        lambda: refund.fresh(outages=1),
        "Money!",
        worker(client),
        "pay/after_effect",
        functions=[refund.zoe(refund.APPROVES)],
        state=refund.Paid([20.0]),
    )


async def test_no_crash_changes_what_the_desk_says(client: Client) -> None:
    await crashed(
        desk,
        "Where is my money? Order 1042.",
        worker(client),
        "tool-refund/after_effect",
        functions=[refund.zoe(refund.APPROVES)],
    )


async def test_no_crash_changes_a_report(client: Client) -> None:
    points = ("researcher::tool-read/after_effect", "gather[1]/tool-research/child_done")
    await crashed(research.fresh, research.ASKED.model_dump(), worker(client), *points)


async def test_no_crash_changes_the_code(client: Client, tmp_path: Path) -> None:
    def fresh() -> tuple[Agent, Path]:
        (tmp_path / "check.py").write_text(CHECK)
        (tmp_path / "add.py").unlink(missing_ok=True)
        return build(MCPServer("scratch", url=url), script(first=RIGHT)), tmp_path

    async with served(make(tmp_path)) as url:
        points = ("list-scratch/after_effect", "tool-write_file/after_effect")
        await crashed(fresh, TASK, worker(client), *points, state=lambda folder: (folder / "add.py").read_text())


async def test_no_crash_changes_a_chat(client: Client) -> None:
    def fresh() -> tuple[Agent, MemorySessions]:
        sessions = MemorySessions()
        return support(sessions=sessions), sessions

    async def said(sessions: MemorySessions) -> list[str]:
        return [str(each) for each in await sessions.load("ann")]

    asked = AgentInput(message="Hello there.", session_key="ann")
    await crashed(fresh, asked, worker(client), "save-message/after_effect", "save-session/after_commit", state=said)


async def test_no_crash_loses_a_finding_or_doubles_it(client: Client) -> None:
    points = "tool-add_findings/after_effect"
    await crashed(small_audit, question("a folder").model_dump(), worker(client), points, state=Findings.lines)


async def until_sent(texts: int) -> None:
    while len(current_step().resources["sent"]) < texts:  # noqa: ASYNC110 - a mail service does not tell
        await asyncio.sleep(0.05)


async def test_no_crash_loses_a_reminder_or_doubles_it(client: Client) -> None:
    sent: dict[str, str] = {}

    def fresh() -> tuple[Function[str, str], dict[str, str]]:
        sent.clear()
        assistant = make_assistant("1 second")

        async def reminded(ctx: Context[str]) -> str:
            result = await ctx.step.invoke("ask", assistant, ctx.input)
            await ctx.step.run("wait", until_sent, 1)
            return result.text

        return Function[str, str]("reminded", reminded, input_type=str, output_type=str, uses=[assistant]), sent

    report = await crashed(
        fresh,
        "Remind me of my parcel.",
        worker(client, outbox=sent, sent=sent),
        "tool-schedule_reminder/after_send",
        "tool-send_message/after_effect",
        state=lambda sent: list(sent.values()),
    )
    assert report
    assert list(sent.values()) == ["Your parcel is ready at the shop."]


async def test_no_crash_loses_a_reply_or_doubles_it(client: Client) -> None:
    sent: dict[str, tuple[str, str]] = {}

    def fresh() -> tuple[Function[None, None], dict[str, tuple[str, str]]]:
        sent.clear()
        functions = article.example.build(ScriptedModel(article.script("0s")), MemorySessions())

        async def answered(ctx: Context[None]) -> None:
            message = {"text": "Where is order 7?", "session_key": "ann"}
            await ctx.step.send_event("say", Event("agent/message.received", message))
            await ctx.step.run("wait", until_sent, 3)

        return Function[None, None]("answered", answered, uses=functions), sent

    await crashed(
        fresh,
        None,
        worker(client, channel=lambda where, text, key: sent.setdefault(key, (where, text)), sent=sent),
        "handle-message::save-response/after_effect",
        "handle-message::reply/after_send",
        state=lambda sent: sorted(sent.values()),
    )
    assert sorted(sent.values()) == article.TEXTS
