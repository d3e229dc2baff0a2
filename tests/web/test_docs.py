"""The reader of the API's description: self-contained, and it works under the policy that it is served with."""

import os
import re

import pytest

from tests.web.conftest import Site

CHROMIUM = "/usr/bin/chromium-headless-shell"


async def test_the_page_loads_nothing_from_elsewhere(site: Site) -> None:
    page = await site.ask("GET", "/api/docs", role=None)
    assert (page.status, page.media) == (200, "text/html")
    files = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert files
    for file in files:
        assert file.startswith("/api/")
        assert (await site.ask("GET", file, role=None)).status == 200
    script = (await site.ask("GET", "/api/docs.js", role=None)).body.decode()
    assert "innerHTML" not in script
    assert "http" not in script
    assert "<script>" not in page.body.decode()
    assert " style=" not in page.body.decode()


@pytest.mark.browser
async def test_the_page_shows_every_operation_without_a_complaint(site: Site) -> None:
    if not os.access(CHROMIUM, os.X_OK):
        if os.environ.get("CI") == "true":
            pytest.fail("chromium-headless-shell is not installed")
        pytest.skip("chromium-headless-shell is not installed")
    from playwright.async_api import async_playwright

    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{site.url}/api/docs#createDevice")
        await page.wait_for_selector("article")
        operations = await page.locator("article").count()
        shown = await page.locator("#createDevice details[open]").count()
        await page.fill("#filter", "credential")
        filtered = await page.locator("article:visible").count()
        await page.screenshot(path=os.environ.get("DOCS_SHOT", os.devnull), type="png")
        await browser.close()
    declared = (await site.ask("GET", "/api/openapi.json", role=None)).json["paths"]
    assert operations == sum(len(item) for item in declared.values())
    assert shown == 1
    assert 0 < filtered < 10
    assert complaints == []
