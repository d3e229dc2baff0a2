"""`make demo` as its user sees it, in a real browser: the fleet comes online, its charts move, a command is answered
within a second, an update walks to succeeded. Screenshots go to test-results/ for whoever looks at them.
"""

import contextlib
import os
import re
import time
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.e2e.browsing import browser_page, demo

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "test-results" / "console"
DEVICES = 25


async def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")


def path_of(link: str) -> str:
    return link[: link.index("/login")]


@pytest.mark.timeout(300)
async def test_the_demo_in_a_browser(tmp_path: Path) -> None:
    async with demo(tmp_path) as link, browser_page() as page:
        await page.goto(link)
        await expect(page.get_by_test_id("user-menu")).to_be_visible(timeout=15_000)
        base = path_of(link)

        # All 25 come online.
        await page.goto(f"{base}/devices?status=online")
        rows = page.get_by_test_id("device-row")
        for _ in range(4):  # on a busy machine some come when the page has long been there
            with contextlib.suppress(AssertionError):
                await expect(rows).to_have_count(DEVICES, timeout=20_000)
                break
            await page.reload()
        await expect(rows).to_have_count(DEVICES, timeout=20_000)
        statuses = page.get_by_test_id("device-status")
        assert {await status.get_attribute("data-status") for status in await statuses.all()} == {"online"}
        await shot(page, "devices")

        # A device's charts move.
        await page.goto(f"{base}/devices/sim-0020")
        chart = page.get_by_test_id("chart").first
        await expect(chart).to_be_visible(timeout=15_000)
        before = int(await chart.get_attribute("data-points") or 0)
        await expect(chart).not_to_have_attribute("data-points", str(before), timeout=10_000)
        await page.wait_for_timeout(5_000)
        assert int(await chart.get_attribute("data-points") or 0) > before
        await shot(page, "device-telemetry")

        # A command is answered within a second, as the operator sees it.
        await page.goto(f"{base}/devices/sim-0020?tab=commands")
        await page.get_by_test_id("command-name").fill("identify")
        await page.keyboard.press("Escape")
        began = time.monotonic()
        await page.get_by_test_id("command-send").click()
        states = ", ".join(f'[data-status="{state}"]' for state in ("accepted", "running", "succeeded"))
        answered = page.locator(f'[data-testid="command-status"]:is({states})')
        await expect(answered.first).to_be_visible(timeout=1_000)
        assert time.monotonic() - began < 1.5
        await expect(page.locator('[data-testid="command-status"][data-status="succeeded"]').first).to_be_visible(
            timeout=20_000
        )
        await shot(page, "device-commands")

        # The first update has finished, the second is under way.
        await page.goto(f"{base}/campaigns")
        await expect(page.get_by_test_id("campaign-row")).to_have_count(2, timeout=120_000)
        finished = page.locator('[data-testid="campaign-status"][data-status="finished"]')
        await expect(finished).to_have_count(1, timeout=10_000)
        await expect(page.locator('[data-testid="campaign-status"][data-status="running"]')).to_have_count(1)
        await shot(page, "updates")

        # An update made here walks to succeeded.
        await page.goto(f"{base}/firmware")
        await page.get_by_test_id("upload-open").click()
        image = tmp_path / "firmware-9.0.0.bin"
        image.write_bytes(os.urandom(20_000))
        await page.get_by_test_id("upload-file-input").set_input_files(image)
        await page.get_by_test_id("upload-version").fill("9.0.0")
        await page.get_by_test_id("upload-submit").click()
        await expect(page.get_by_text("9.0.0").first).to_be_visible(timeout=10_000)
        await shot(page, "firmware")
        await page.goto(f"{base}/campaigns/new?device=sim-0001")
        await page.get_by_test_id("pick-artifact").filter(has_text="9.0.0").click()
        await page.get_by_test_id("campaign-next").click()
        await page.get_by_test_id("campaign-submit").click()
        job = page.locator('[data-testid="job-row"][data-device="sim-0001"] [data-testid="job-status"]')
        await expect(job).to_have_attribute(
            "data-status", re.compile("downloading|verifying|installing|rebooting"), timeout=20_000
        )
        await shot(page, "update-running")
        await expect(job).to_have_attribute("data-status", "succeeded", timeout=90_000)
        await expect(page.get_by_test_id("campaign-status")).to_have_attribute("data-status", "finished", timeout=5_000)
        await shot(page, "update-succeeded")
        await page.goto(f"{base}/devices/sim-0001")
        await expect(page.get_by_test_id("device-firmware")).to_have_text("9.0.0", timeout=5_000)

        # The broker's topics, level by level, count what comes; its metrics say what they mean.
        await page.goto(f"{base}/broker")
        await page.get_by_test_id("tab-topics").click()
        root = page.locator('[data-testid="topic-row"][data-topic="devices"]')
        await expect(root).to_be_visible(timeout=10_000)
        messages = root.get_by_test_id("topic-messages")
        before_text = await messages.inner_text()
        await expect(messages).not_to_have_text(before_text, timeout=10_000)
        device = page.locator('[data-testid="topic-row"][data-topic="devices/sim-0001"]')
        await expect(device).to_be_visible()
        await device.get_by_test_id("topic-toggle").click()
        await expect(page.locator('[data-testid="topic-row"][data-topic="devices/sim-0001/status"]')).to_be_visible()
        await shot(page, "broker-topics")
        await page.get_by_test_id("tab-metrics").click()
        await expect(page.locator('[data-testid="metric-row"][data-metric="messages_received"]')).to_be_visible()

        # What an operator looks at all day, in the dark and on a phone.
        await page.emulate_media(color_scheme="dark")
        await page.goto(f"{base}/")
        await expect(page.get_by_test_id("firmware-distribution")).to_be_visible(timeout=10_000)
        await page.wait_for_timeout(1_500)
        await shot(page, "overview-dark")
        await page.set_viewport_size({"width": 390, "height": 844})
        await page.wait_for_timeout(500)
        await shot(page, "overview-phone")
