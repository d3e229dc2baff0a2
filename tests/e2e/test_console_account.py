"""One's own account in the console: a second factor is set up and asked for, sessions and API keys are seen and ended.

Screenshots go to test-results/ for whoever looks at them.
"""

import time
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from fleet.totp import STEP_S, code_at
from tests.e2e.browsing import browser_page
from tests.e2e.running import PASSWORD, MooringProcess, operator
from tests.e2e.test_console_profiles import looks, shot

pytestmark = [pytest.mark.browser, pytest.mark.slow]


async def log_in(page: Page) -> None:
    await page.get_by_test_id("login-username").fill("admin")
    await page.get_by_test_id("login-password").fill(PASSWORD)
    await page.keyboard.press("Enter")


@pytest.mark.timeout(120)
async def test_an_account_with_a_second_factor_sessions_and_keys(tmp_path: Path) -> None:
    server = MooringProcess(tmp_path / "data")
    server.start()
    refused = ("/second-factor", ":confirm", "/auth/login", "/auth/me")
    try:
        async with operator(server) as api, browser_page(refused=refused) as page:
            await page.goto(f"{server.web}/settings")
            await log_in(page)

            # A wrong password and a wrong code are said where they were typed.
            await page.get_by_test_id("factor-add").click()
            await page.get_by_test_id("present-password").fill("wrong")
            await page.get_by_test_id("account-submit").click()
            await expect(page.get_by_text("is not right")).to_be_visible()
            await page.get_by_test_id("present-password").fill(PASSWORD)
            await page.get_by_test_id("account-submit").click()
            secret = await page.get_by_test_id("factor-secret").text_content() or ""
            await page.get_by_test_id("factor-code").fill("000000")
            await page.get_by_test_id("account-submit").click()
            await expect(page.get_by_text("does not fit")).to_be_visible()
            await shot(page, "account-factor")
            await page.get_by_test_id("factor-code").fill(code_at(secret, int(time.time()) // STEP_S))
            await page.get_by_test_id("account-submit").click()
            recovery = (await page.get_by_test_id("recovery-codes").text_content() or "").split()
            assert len(recovery) == 10
            await page.get_by_test_id("recovery-done").click()
            await expect(page.get_by_test_id("factor-state")).to_contain_text("Active")

            # An API key is shown once, works, and is revoked.
            await page.get_by_test_id("api-key-add").click()
            await page.get_by_test_id("api-key-name").fill("nightly report")
            await page.get_by_test_id("api-key-submit").click()
            key = await page.get_by_test_id("api-key").text_content() or ""
            assert key.startswith("mrk_")
            await page.get_by_role("button", name="Done").click()
            await expect(page.get_by_test_id("api-key-row")).to_contain_text("nightly report")
            await looks(page, "account")
            await page.get_by_test_id("api-key-revoke").click()
            await page.get_by_test_id("confirm-submit").click()
            await expect(page.get_by_test_id("api-key-row")).to_contain_text("Revoked")

            # The other session is the one of the test's own client.
            await expect(page.get_by_test_id("session-row")).to_have_count(2)
            await page.get_by_test_id("session-end-others").click()
            await expect(page.get_by_test_id("session-row")).to_have_count(1)
            async with api.session.get(f"{server.web}/api/v1/auth/me") as answer:
                assert answer.status == 401

            # The next login asks for a code.
            await page.get_by_test_id("session-end").click()
            await log_in(page)
            await page.get_by_test_id("login-otp").fill("000000")
            await page.keyboard.press("Enter")
            await expect(page.get_by_test_id("login-error")).to_contain_text("The code is wrong")
            await shot(page, "login-code")
            await page.get_by_test_id("login-otp").fill(recovery[0])
            await page.keyboard.press("Enter")
            await expect(page.get_by_test_id("factor-state")).to_contain_text("Active")
    finally:
        server.stop()
