"""The page in a real browser: filter, open a run, read its conversation, give an approval, watch it end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from durably.backends import SQLiteBackend
from durably.core import Agent
from durably.core.messages import assistant
from durably.core.model import Delta, ModelRequest, ModelResponse
from examples.refund_desk import desk
from tests.cli.program import HOSTILE, echo, make_runs
from tests.ui.served import served

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

Test = Callable[[Page, SQLiteBackend], Awaitable[None]]


def in_browser(path: Path, test: Test, *, width: int = 1280) -> None:
    """Run a test on the page of an engine whose worker is up. No script may fail, or be refused by the policy."""

    async def main() -> None:
        await make_runs(path / "runs.db")
        async with (
            SQLiteBackend(path / "runs.db", [desk, echo]) as backend,
            served(backend) as address,
            browser_page(address, width) as page,
        ):
            await test(page, backend)

    asyncio.run(main())


@asynccontextmanager
async def browser_page(address: str, width: int) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(base_url=address, viewport={"width": width, "height": 800})
        context.set_default_timeout(15_000)
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        yield page
        assert problems == []
        await browser.close()


@pytest.mark.timeout(120)
def test_a_run_is_found_opened_approved_and_watched_to_its_end(tmp_path: Path) -> None:
    async def test(page: Page, backend: SQLiteBackend) -> None:
        await page.goto("/")
        await page.get_by_label("Function").fill("refund-desk")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.locator("tr[data-row]")).to_have_count(1)
        await page.get_by_role("link", name="refund-1042").click()
        await expect(page.locator(".row[data-step]")).to_have_count(13)
        await page.get_by_text("tool-get_payments").click()
        panel = page.get_by_role("complementary", name="Step")
        await expect(panel).to_contain_text("the bank's gateway did not answer")
        await page.keyboard.press("Escape")
        await expect(panel).to_be_hidden()
        await page.get_by_role("button", name="Approve").click()
        await expect(page.locator("h1 ~ .status")).to_have_text("completed")  # without being loaded again
        await expect(page.locator(".row[data-step]")).to_have_count(15)
        await expect(page.get_by_text("Why not?")).to_have_count(0)
        await page.get_by_role("link", name="Conversation").click()
        await expect(page.locator(".said.assistant").last).to_contain_text("84.90 EUR are on their way back")
        await page.get_by_role("link", name="Timeline").click()
        await page.get_by_text("think:1", exact=True).click()
        await page.get_by_role("button", name="Fork after this step").click()
        await expect(page.get_by_text("Forked from")).to_be_visible()
        await expect(page.get_by_role("button", name="Approve")).to_be_visible()  # the fork asks anew
        await page.get_by_role("link", name="compare", exact=True).click()
        await expect(page.get_by_text("here they part")).to_be_visible()

    in_browser(tmp_path, test)


class Halting:
    """A model that writes a piece of its answer, and the rest once it is let."""

    name = "halting:1"

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def complete(self, request: ModelRequest) -> ModelResponse:
        return ModelResponse(message=assistant("It is <b>on its way</b>."))

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        yield Delta(kind="text", text="It is <b>")
        await self.go.wait()
        yield await self.complete(request)


@pytest.mark.timeout(120)
def test_an_answer_is_seen_while_it_is_written(tmp_path: Path) -> None:
    async def main() -> None:
        model = Halting()
        writer = Agent("writer", model=model, instructions="", stream=True)
        async with (
            SQLiteBackend(tmp_path / "runs.db", [writer]) as backend,
            served(backend) as address,
            browser_page(address, 1280) as page,
        ):
            run = await backend.start(writer, "Where is it?", run_id="w")
            for path in ("/runs/w", "/runs/w/conversation"):
                await page.goto(path)  # in the middle of the answer
                await expect(page.locator("#writing .text")).to_have_text("It is <b>")
                await expect(page.locator("#writing .who")).to_have_text("think writes")
            model.go.set()
            await run.result()
            await expect(page.locator(".said.assistant .text")).to_have_text("It is <b>on its way</b>.")
            await expect(page.locator("#writing")).to_be_hidden()
            await expect(page.locator("h1 ~ .status")).to_have_text("completed")

    asyncio.run(main())


@pytest.mark.timeout(120)
def test_the_list_follows_what_happens(tmp_path: Path) -> None:
    async def test(page: Page, backend: SQLiteBackend) -> None:
        await page.goto("/runs")
        await expect(page.locator("#pulse")).to_be_visible()
        before = await page.locator("tr[data-row]").count()
        await backend.invoke(echo, "news", run_id="newest")
        await expect(page.get_by_role("link", name="newest")).to_be_visible()
        await expect(page.locator("tr[data-row]")).to_have_count(before + 1)

    in_browser(tmp_path, test)


KEEPS_ITS_STREAM = (
    "window.EventSource = class extends EventSource { constructor(at) { super(at); self.stream = this; } }"
)


@pytest.mark.timeout(120)
def test_a_page_without_its_server_says_so(tmp_path: Path) -> None:
    async def test(page: Page, _: SQLiteBackend) -> None:
        await page.add_init_script(KEEPS_ITS_STREAM)
        await page.goto("/runs")
        await expect(page.locator("#pulse")).to_have_text("live")
        await page.evaluate("stream.onerror()")
        await expect(page.locator("#pulse.off")).to_have_text("no connection")
        await page.evaluate("stream.onopen()")
        await expect(page.locator("#pulse:not(.off)")).to_have_text("live")

    in_browser(tmp_path, test)


@pytest.mark.timeout(120)
def test_runs_are_filtered_and_paged(tmp_path: Path) -> None:
    async def test(page: Page, backend: SQLiteBackend) -> None:
        for number in range(55):
            await backend.invoke(echo, "x", run_id=f"many-{number}")
        rows = page.locator("tr[data-row]")
        await page.goto("/runs")
        await page.get_by_label("Run id").fill("many")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.get_by_role("navigation", name="Status")).to_contain_text("completed55")
        await expect(rows).to_have_count(50)
        await page.get_by_role("link", name="Older").click()
        await expect(rows).to_have_count(5)
        await expect(page.get_by_label("Run id")).to_have_value("many")
        await page.get_by_role("link", name="Newer").click()
        await expect(rows).to_have_count(50)
        await page.get_by_role("link", name="Clear").click()
        await page.get_by_role("navigation", name="Status").get_by_role("link").filter(has_text="failed").click()
        await expect(rows).to_have_count(1)

    in_browser(tmp_path, test)


@pytest.mark.timeout(120)
def test_keys_move_through_the_rows(tmp_path: Path) -> None:
    async def test(page: Page, backend: SQLiteBackend) -> None:
        await page.goto("/runs?status=failed")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/runs/broken")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.locator("#panel #step h2")).to_contain_text("say")
        await page.keyboard.press("r")
        await page.wait_for_url("**/runs")
        await page.keyboard.press("/")
        await expect(page.locator("#filter")).to_be_focused()

    in_browser(tmp_path, test)


@pytest.mark.timeout(120)
def test_hostile_text_is_seen_and_does_nothing(tmp_path: Path) -> None:
    async def test(page: Page, backend: SQLiteBackend) -> None:
        for path in ("/runs/hostile", "/runs/hostile/step?key=say"):
            await page.goto(path)
            await expect(page.locator("pre").last).to_contain_text("<script>document.title")
            assert "taken" not in await page.title()
            assert await page.locator("img").count() == 0
        assert "<img" in HOSTILE

    in_browser(tmp_path, test)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", ["/runs", "/runs/refund-1042", "/runs/refund-1042/conversation", "/approvals"])
def test_a_phone_need_not_scroll_sideways(tmp_path: Path, path: str) -> None:
    async def test(page: Page, backend: SQLiteBackend) -> None:
        await page.goto(path)
        await expect(page.locator("#live")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    in_browser(tmp_path, test, width=375)
