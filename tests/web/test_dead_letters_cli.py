"""`mooring dead-letters` against the real server."""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.web.conftest import Site
from tests.web.test_dead_letters import refuse
from tests.web.test_with_fleet import admin, link, made, site

__all__ = ["admin", "link", "site"]  # fixtures


async def run(site: Site, token: str, directory: Path, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `mooring dead-letters …`."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "HOME": str(directory)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mooring", "dead-letters", *arguments),
        env={**environ, "MOORING_URL": site.url, "MOORING_TOKEN": token, "NO_COLOR": "1", "COLUMNS": "160"},
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_letters_are_listed_shown_replayed_and_deleted(site: Site, admin: str, tmp_path: Path) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    fit, bad = refuse(site, payload=b'{"pressure": 4}', reason="too_many_metrics"), refuse(site, payload=b"\x1b[31m")
    code, out, _ = await run(site, admin, tmp_path, "list", "--reason", "invalid_json")
    assert (code, "too_many_metrics" in out, "invalid_json" in out) == (0, False, True)
    code, out, _ = await run(site, admin, tmp_path, "show", str(bad))
    assert code == 0
    assert "\x1b" not in out
    code, out, err = await run(site, admin, tmp_path, "replay", str(fit), "-o", "json")
    assert code == 0, err
    assert json.loads(out)[0]["taken"] == 1
    code, out, _ = await run(site, admin, tmp_path, "replay", "--all", "-o", "json")
    assert (code, json.loads(out)[0]["refused"]) == (1, 1)
    assert await run(site, admin, tmp_path, "delete", "--all", "--yes") == (0, "", "deleted 1\n")
    code, _, err = await run(site, admin, tmp_path, "list")
    assert (code, err) == (0, "No message was refused.\n")


async def test_what_is_meant_must_be_said(site: Site, admin: str, tmp_path: Path) -> None:
    code, _, err = await run(site, admin, tmp_path, "delete", "--yes")
    assert (code, err) == (2, "mooring: give ids, or options that say which, or --all\n")
