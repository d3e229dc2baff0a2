"""The demo as a process, and a real browser to look at it; for the tests and for the docs' pictures."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import ConsoleMessage, Page, async_playwright

from tests.servers import find_binary


@asynccontextmanager
async def demo(directory: Path) -> AsyncIterator[str]:
    """`mooring demo` on free ports; gives its one-time login link. Ends it as Ctrl+C does."""
    environ = {
        **os.environ,
        "MOORING_BROKER__PORT": "0",
        "MOORING_BROKER__WS_PORT": "",
        "MOORING_DEVICE_HTTP__PORT": "0",
        "MOORING_WEB__PORT": "0",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    log = directory / "demo.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mooring", "demo", "--data-dir", str(directory / "data"),
            env=environ, cwd=directory, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://\S+/login\?code=\S+", log.read_text())):
            assert process.returncode is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.1)
        yield found[0]
        assert process.returncode is None, log.read_text()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 30) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()


@asynccontextmanager
async def browser_page(*, refused: Sequence[str] = (), **context: object) -> AsyncIterator[Page]:
    """A page without an error in its console, but for requests to addresses that end in one of `refused`."""
    binary = find_binary("chromium-headless-shell", package="chromium-headless-shell")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        page = await (await browser.new_context(viewport={"width": 1440, "height": 900}, **context)).new_page()  # type: ignore[arg-type]
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))

        def heard(message: ConsoleMessage) -> None:
            # On a first visit there is no login to renew: the 401 that says so is the one expected error.
            if message.type == "error" and not message.location["url"].endswith(("/auth/refresh", *refused)):
                problems.append(message.text)

        page.on("console", heard)
        yield page
        await browser.close()
        assert not problems, problems
