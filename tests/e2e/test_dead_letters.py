"""Dead letters in a real browser: seen on the overview, read without being run, replayed, deleted."""

from pathlib import Path

import aiohttp
import pytest

from tests.e2e.browsing import browser_page
from tests.e2e.running import PASSWORD, MooringProcess

PAYLOADS = [
    (200, "application/json", b'{"t": 1}'),
    (400, "application/json", b'{"t": "warm"}'),
    (400, "application/json", b"<img src=x onerror=document.title='run'>"),
    (400, "application/cbor", b"\x00\x01\xff binary"),
]


@pytest.fixture
def server(tmp_path: Path):
    process = MooringProcess(tmp_path / "data")
    process.start()
    yield process
    assert process.stop() == 0


async def refuse(server: MooringProcess) -> None:
    async with aiohttp.ClientSession(server.web) as http:
        login = {"username": "admin", "password": PASSWORD}
        async with http.post("/api/v1/auth/login", json=login) as answer:
            headers = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}
        async with http.post("/api/v1/devices", json={"id": "pump-7"}, headers=headers) as answer:
            token = (await answer.json())["credentials"]["token"]
        url = f"http://127.0.0.1:{server.endpoints['device_http_port']}/device/v1/telemetry"
        for status, kind, payload in PAYLOADS:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
            async with http.post(url, data=payload, headers=headers) as answer:
                assert answer.status // 100 == status // 100, await answer.text()


async def test_a_refused_message_is_found_read_replayed_and_deleted(server: MooringProcess) -> None:
    await refuse(server)
    async with browser_page() as page:
        await page.goto(f"{server.web}/login")
        await page.fill("input[name=username], input[autocomplete=username]", "admin")
        await page.fill("input[type=password]", PASSWORD)
        await page.keyboard.press("Enter")
        count = page.get_by_test_id("dead-letters")
        await count.wait_for()
        assert await count.inner_text() == "3"
        await count.click()
        rows = page.get_by_test_id("letter-row")
        await rows.nth(2).wait_for()
        for row in (0, 1):
            await rows.nth(row).get_by_role("button", name="Message").click()
        shown = page.get_by_test_id("letter-payload")
        await shown.nth(1).wait_for()
        assert "00 01 ff 20" in await shown.nth(0).inner_text()
        assert "<img src=x" in await shown.nth(1).inner_text()
        assert await page.title() != "run"
        await page.get_by_test_id("replay-all").click()
        done = page.locator("[data-testid=replay][data-state=done]")
        await done.wait_for()
        assert "0 accepted, 3 refused again, of 3" in await done.inner_text()
        await page.get_by_text("refused again 1 time").first.wait_for()
        await rows.nth(0).get_by_test_id("delete-one").click()
        await page.get_by_test_id("confirm-submit").click()
        await page.get_by_text("2 of 2 messages").wait_for()
        await page.get_by_test_id("delete-all").click()
        await page.get_by_test_id("confirm-submit").click()
        await page.get_by_test_id("empty").wait_for()
