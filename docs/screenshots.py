"""Take the pictures of README and docs again, of the real demo in a real browser. `make docs` runs it."""

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import Page

from tests.e2e.browsing import browser_page, demo

PICTURES = Path(__file__).parent / "pictures"


async def take(page: Page, address: str, name: str, *, testid: str, settle_s: float = 2) -> None:
    await page.goto(address)
    await page.get_by_test_id(testid).first.wait_for()
    await page.wait_for_timeout(settle_s * 1_000)  # charts, rates and live values settle
    await page.screenshot(path=PICTURES / f"{name}.png")


async def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        async with demo(Path(directory)) as link, browser_page() as page:
            await page.goto(link)
            await page.get_by_test_id("user-menu").wait_for()
            base = link[: link.index("/login")]
            await page.goto(f"{base}/")
            await page.get_by_test_id("live-event").first.wait_for(timeout=60_000)
            # The tail begins when the page is opened, so it stays open until the second update is well under way.
            await page.get_by_text("1.2.0").first.wait_for(timeout=90_000)
            await page.wait_for_timeout(45_000)
            await page.screenshot(path=PICTURES / "overview.png")
            await page.emulate_media(color_scheme="dark")
            await page.wait_for_timeout(500)
            await page.screenshot(path=PICTURES / "overview-dark.png")
            await page.emulate_media(color_scheme="light")
            await take(page, f"{base}/devices", "devices", testid="device-row")
            await take(page, f"{base}/devices/sim-0021", "device-telemetry", testid="chart")
            await take(page, f"{base}/broker?tab=topics", "broker-topics", testid="topic-row", settle_s=12)
            await page.goto(f"{base}/campaigns")
            running = page.get_by_test_id("campaign-row").first
            await running.wait_for()
            campaign = await running.get_attribute("data-campaign")
            await take(page, f"{base}/campaigns/{campaign}", "update", testid="job-row")


asyncio.run(main())
