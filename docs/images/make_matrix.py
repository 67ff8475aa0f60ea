"""Makes the picture of a crash matrix: ``python -m docs.images.make_matrix``.

The agent looks up an order, then pays a refund and writes a mail at the same time. The refund takes no idempotency key.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from durably.core import Agent, AgentResult, Context, Event, Function, create_agent_loop, current_step, function, tool
from durably.testing import ScriptedModel, call, crash_matrix

HERE = Path(__file__).parent


@function("audit")
async def audit(ctx: Context[str]) -> str:
    """Checks a customer."""
    return await ctx.step.run("look-up", str.title, ctx.input)


def refund_desk() -> tuple[Function[str, AgentResult], list[str]]:
    """The function under test, and the payments that it makes."""
    payments: list[str] = []
    mails: dict[str, str] = {}

    @tool(effect="pure")
    def get_order(order_id: str) -> str:
        """Look up one order."""
        return f"order {order_id}: a vase, 12.50 EUR"

    @tool
    def refund(order_id: str) -> str:
        """Pay the money back."""
        payments.append(order_id)
        return "refunded"

    @tool
    def send_mail(text: str) -> str:
        """Write to the customer."""
        mails[current_step().idempotency_key] = text
        return "sent"

    model = ScriptedModel(
        call("get_order", order_id="7"),
        [call("refund", order_id="7"), call("send_mail", text="It is on its way.")],
        "Your money is on its way.",
    )
    agent = Agent("desk", model=model, instructions="You help customers.", tools=[get_order, refund, send_mail])

    @function("handle-refund")
    async def handle_refund(ctx: Context[str]) -> AgentResult:
        await ctx.step.invoke("audit", audit, "ann")
        await ctx.step.sleep("cool-off", "1h")
        result = await create_agent_loop(agent, ctx.input)(ctx.step, ctx.logger)
        await ctx.step.send_event("tell", Event("refund/handled"))
        return result

    return handle_refund, payments


async def main() -> None:
    """Crash the function everywhere, and keep the report as a picture."""
    report = await crash_matrix(refund_desk, "My vase is broken.", state=list, functions=[audit])
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder) / "report.html"
        report.to_html(str(page_file))
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--font-render-hinting=none"]
            )
            page = await chromium.new_page(viewport={"width": 960, "height": 860}, device_scale_factor=1.5)
            await page.goto(page_file.as_uri())
            await page.screenshot(path=HERE / "crash-matrix.png")
            await chromium.close()


if __name__ == "__main__":
    asyncio.run(main())
