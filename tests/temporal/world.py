"""A function that uses everything, with effects that leave a line in a file; also a process that works on it.

Called as: python -m tests.temporal.world ADDRESS QUEUE JOURNAL [CRASH [SIGNAL]]. It works until it is killed, or kills
or stops itself at a crash such as "tool-charge/in_body"; what its bodies do is noted in the file JOURNAL.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Agent, Context, Event, RetryPolicy, current_step, function, run_worker, tool
from durably.core.steps import Point
from durably.testing import Crash, EffectLedger, FaultPlan, ScriptedModel, call
from durably.testing.crash.faults import chain

LEDGER = "DURABLY_TEST_LEDGER"
EXPECTED = ["charged", "answered by clerk", "aside", "yes"]


def effect(name: str) -> str:
    """Leaves a line outside the process, as an effect does."""
    step = current_step()
    line = json.dumps([name, step.run_id, step.key, step.attempt, step.idempotency_key])
    descriptor = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
    return name


def effects(path: Path) -> list[list[Any]]:
    """What was written: name, run, step key, attempt, idempotency key."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@tool
async def charge(order_id: str) -> str:
    """Charge for one order."""
    effect(f"charge {order_id}")
    current_step().heartbeat()
    return f"charged {order_id}"


cashier = Agent(
    "cashier",
    model=ScriptedModel(
        call("charge", order_id="1"), [call("charge", order_id="2"), call("charge", order_id="3")], "charged"
    ),
    instructions="Charge.",
    tools=[charge],
)
clerk = Agent("clerk", model=ScriptedModel("answered by clerk"), instructions="Answer.")


@function("answer", triggers=["world/question"])
async def answer(ctx: Context[dict[str, str]]) -> None:
    await ctx.step.run("note", effect, "question")
    await ctx.step.send_event("reply", Event("world/answer", {"run": ctx.input["run"], "text": "yes"}))


@function("world", retry_policy=RetryPolicy(initial=0.01))
async def world(ctx: Context[None]) -> list[str]:
    step = ctx.step
    charged = await step.invoke("cashier", cashier, "charge 1, 2 and 3")
    answered = await step.invoke("clerk", clerk, "answer")
    aside = await step.run("aside", lambda: effect("aside"))
    await step.sleep("rest", 0.05)
    reply, _ = await step.gather(
        lambda: step.wait_for_event("reply", "world/answer", match={"run": ctx.run_id}),
        lambda: step.send_event("ask", Event("world/question", {"run": ctx.run_id})),
    )
    await step.run("last", effect, "last")
    return [charged.text, answered.text, aside, reply.data["text"] if reply else "no"]


FUNCTIONS = (world, cashier, clerk, answer)


def backend(client: Client, queue: str, **worker: Any) -> TemporalBackend:
    """A worker on everything, which soon notices another one's death."""
    return TemporalBackend(
        client,
        task_queue=queue,
        functions=FUNCTIONS,
        heartbeat=timedelta(seconds=1),
        task_timeout=timedelta(seconds=3),
        drain=timedelta(seconds=5),
        worker_options={"sticky_queue_schedule_to_start_timeout": timedelta(seconds=1), **worker},
    )


async def main(address: str, queue: str, journal: str, crash: str = "", how: str = "SIGKILL") -> None:
    made = backend(await Client.connect(address), queue)
    plan = FaultPlan([Crash.parse(crash)] if crash and how == "SIGKILL" else [], "sigkill", EffectLedger(journal))

    def stop(point: Point) -> None:
        if crash and how == "SIGSTOP" and not plan.fired and Crash.parse(crash).hits(point):
            plan.fired.append((Crash.parse(crash), point))
            os.kill(os.getpid(), signal.SIGSTOP)

    made.probe = chain(plan, stop)
    await run_worker(made)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    os._exit(0)  # the SDK's native threads now and then abort an interpreter that takes its time to end
