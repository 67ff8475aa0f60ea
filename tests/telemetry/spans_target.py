"""What the worker processes of the spans' test run: its spans go to a file, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from durably.backends import SQLiteBackend
from durably.core import Agent, Context, Event, Function, RetryPolicy, current_step, function, tool
from durably.core.steps import Probe
from durably.telemetry import OpenTelemetryObserver
from durably.telemetry.id_generator import RunIdGenerator
from durably.testing import ScriptedModel, call


@tool
async def charge(order_id: str) -> str:
    """Charge for one order."""
    with trace.get_tracer("shop").start_as_current_span("bank"):
        return f"charged {order_id}"


script = ScriptedModel([call("charge", order_id="2"), call("charge", order_id="3")], "done")
cashier = Agent("cashier", model=script, instructions="Charge.", tools=[charge])


@function("listener", triggers=["order/charged"])
async def listener(ctx: Context[None]) -> None:
    await ctx.step.run("note", str, "charged")


async def flaky() -> str:
    if current_step().attempt == 1:
        raise ConnectionError("first time")
    return "second time"


@function("main", retry_policy=RetryPolicy(initial=0.01))
async def main(ctx: Context[str]) -> str:
    await ctx.step.run("flaky", flaky)
    answer = await ctx.step.invoke("cashier", cashier, ctx.input)
    await ctx.step.send_event("tell", Event("order/charged"))
    await ctx.step.sleep("rest", 0.05)
    return answer.text


async def work(probe: Probe, folder: str) -> None:
    """Run it to its end, with all that it starts."""
    with (Path(folder) / "spans").open("a") as out:
        provider = TracerProvider(id_generator=RunIdGenerator())
        exporter = ConsoleSpanExporter(out=out, formatter=lambda span: f"{span.to_json(indent=None)}\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        functions: list[Function[Any, Any]] = [main, cashier, listener]
        backend = SQLiteBackend(Path(folder) / "runs.db", functions, observers=[OpenTelemetryObserver(functions)])
        backend.probe = probe
        async with backend:
            await (await backend.start(main, "go", run_id="r")).result()
            for run in await backend.runs():
                await run.result()
