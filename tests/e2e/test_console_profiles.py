"""Profiles in the console: one is made, tried on payloads, mended, given to a device, deleted. Screenshots go to
test-results/ for whoever looks at them.
"""

import json
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.e2e.browsing import browser_page
from tests.e2e.running import PASSWORD, MooringProcess, operator

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHOTS = Path(__file__).parents[2] / "test-results" / "console"

TELEMETRY = {
    "metrics": {
        "temperature": {"type": "number", "unit": "Cel", "min": -40, "max": 125},
        "door": {"type": "boolean"},
        "level": {"unit": "%", "max": 100},
    },
    "mapping": [
        {"from": "/data/temp", "metric": "temperature", "scale": 0.1},
        {"from": "/data/level", "metric": "level"},
    ],
    "binary": {
        "fields": [
            {"type": "i16", "byte_order": "little", "metric": "temperature", "scale": 0.01},
            {"type": "u8", "bits": [{"low": 0, "metric": "door", "type": "boolean"}]},
        ]
    },
}


async def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")


async def looks(page: Page, name: str) -> None:
    """The page in light and dark, wide and narrow; nothing of it is wider than the window."""
    wide = page.viewport_size
    assert wide is not None
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for size, width in (("wide", wide["width"]), ("narrow", 390)):
            await page.set_viewport_size({"width": width, "height": wide["height"]})
            await page.wait_for_timeout(200)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            await shot(page, f"{name}-{scheme}-{size}")
    await page.set_viewport_size(wide)
    await page.emulate_media(color_scheme="light")


async def write(page: Page, document: object) -> None:
    await page.get_by_test_id("profile-editor").fill(document if isinstance(document, str) else json.dumps(document))


async def attempt(page: Page, channel: str, payload: str) -> None:
    await page.get_by_test_id("try-channel").click()
    await page.get_by_role("option", name=channel, exact=channel != "telemetry (JSON)").click()
    await page.get_by_test_id("try-payload").fill(payload)
    await page.get_by_test_id("try-run").click()


def tried(page: Page, metric: str) -> Locator:
    return page.locator(f'[data-testid="try-value"][data-metric="{metric}"]')


@pytest.mark.timeout(120)
async def test_a_profile_from_its_making_to_its_end(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    server.start()
    try:
        async with operator(server) as api, browser_page(refused=("/profiles:test", "/profiles/pump")) as page:
            await api.add_device("pump-7")
            await page.goto(f"{server.web}/profiles")
            await page.get_by_test_id("login-username").fill("admin")
            await page.get_by_test_id("login-password").fill(PASSWORD)
            await page.keyboard.press("Enter")
            await expect(page.get_by_test_id("empty")).to_be_visible(timeout=15_000)
            await shot(page, "profiles-empty")
            await page.get_by_test_id("new-profile").click()
            await page.get_by_test_id("profile-name").fill("pump")

            # A draft is tried before it is saved: as JSON, in bytes, with what is refused.
            await write(page, "{")
            await expect(page.get_by_text("Not JSON")).to_be_visible()
            await expect(page.get_by_test_id("profile-save")).to_be_disabled()
            await write(page, {"telemetry": TELEMETRY})
            await attempt(page, "telemetry (JSON)", '{"data": {"temp": 215, "level": 101}}')
            await expect(tried(page, "temperature")).to_have_text("21.5")
            await expect(page.get_by_test_id("try-refused")).to_contain_text("out_of_range")
            await looks(page, "profile-new")
            await attempt(page, "telemetry/binary", "69 08 01")
            await expect(tried(page, "temperature")).to_have_text("21.53")
            await expect(tried(page, "door")).to_have_text("true")
            await attempt(page, "telemetry/binary", "69")
            await expect(page.get_by_test_id("try-refusal")).to_contain_text("1 bytes, the layout has 3 bytes")

            # What is wrong with it is said by its place.
            wrong = {"telemetry": {"mapping": [{"from": "data", "metric": "t"}]}}
            await write(page, wrong)
            await attempt(page, "telemetry (JSON)", "{}")
            await expect(page.get_by_test_id("profile-problem")).to_contain_text("telemetry.mapping.0.from")
            await shot(page, "profile-wrong")
            await write(page, {"telemetry": TELEMETRY})
            await expect(page.get_by_test_id("profile-problem")).to_have_count(0)
            await page.get_by_test_id("profile-save").click()
            await expect(page.get_by_test_id("profile-facts")).to_contain_text("version 1")

            # A device gets it; an edit of what somebody else changed is not lost and does not win unasked.
            await page.goto(f"{server.web}/devices/pump-7")
            await page.get_by_test_id("device-actions").click()
            await page.get_by_test_id("device-edit").click()
            await page.get_by_test_id("edit-profile").fill("pump")
            await page.get_by_test_id("edit-save").click()
            await page.get_by_test_id("device-profile").click()
            await expect(page.get_by_test_id("profile-facts")).to_contain_text("1 device names it")
            async with api.session.put("/api/v1/profiles/pump", json={"description": "theirs"}) as answer:
                assert answer.status == 200
            await write(page, {"description": "Pumps of the second series", "telemetry": TELEMETRY})
            await page.get_by_test_id("profile-save").click()
            await expect(page.get_by_test_id("profile-conflict")).to_contain_text("version 2")
            await page.get_by_role("button", name="Save mine over it").click()
            await expect(page.get_by_test_id("profile-facts")).to_contain_text("version 3")
            assert (await api.get("profiles/pump"))["description"] == "Pumps of the second series"
            await attempt(page, "telemetry/binary", "69 08 01")
            await expect(tried(page, "temperature")).to_have_text("21.53")
            await looks(page, "profile")

            await page.goto(f"{server.web}/profiles")
            await expect(page.get_by_test_id("profile-row")).to_have_count(1)
            await looks(page, "profiles")
            await page.get_by_test_id("profile-row").click()
            await page.get_by_test_id("profile-delete").click()
            await page.get_by_test_id("confirm-name").fill("pump")
            await page.get_by_test_id("confirm-submit").click()
            await expect(page.get_by_test_id("empty")).to_be_visible()
            assert (await api.get("profiles"))["total"] == 0
    finally:
        assert server.stop() == 0
