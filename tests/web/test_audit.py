"""The audit over the API and `mooring audit`, against the real server and its database."""

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from fleet.actor import Actor
from tests.web.conftest import Site
from tests.web.test_with_fleet import admin, got, link, made, site

__all__ = ["admin", "link", "site"]  # fixtures


async def mooring(directory: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `mooring audit …`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mooring", "audit", *arguments),
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(directory),
            "MOORING_DATA_DIR": str(directory),
            "NO_COLOR": "1",
            "COLUMNS": "160",
            **environ,
        },
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def tamper(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "fleet.db")) as database:
        database.execute(statement)
        database.commit()


async def test_the_api_says_whether_the_audit_is_whole(site: Site, admin: str, tmp_path: Path) -> None:
    await made(site, admin, "devices", {"id": "pump-7"})
    head = (await got(site, admin, "audit:head"))["head"]
    report = await got(site, admin, f"audit:verify?head={head}")
    assert (report["ok"], report["head"], report["entries"]) == (True, head, int(head.partition(":")[0]))
    export = await site.ask("GET", "/api/v1/audit:export", role=admin)
    assert export.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in export.body.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert f"{lines[-1]['seq']}:{lines[-1]['digest']}" == head
    tamper(tmp_path, "UPDATE audit SET actor_id = 'eve' WHERE action = 'device.create'")
    report = await got(site, admin, "audit:verify")
    assert (report["ok"], report["faults_total"]) == (False, 1)
    assert "was changed" in report["faults"][0]["detail"]
    assert (await site.ask("GET", "/api/v1/audit:verify?head=5", role=admin)).status == 422


async def test_the_command_line_verifies_online_offline_and_a_file(site: Site, admin: str, tmp_path: Path) -> None:
    hostile = "x\r\n2026-01-01 forged entry\x1b[31m" + "y" * 1_000_000
    await site.fleet.audit.record(Actor(kind="user", id=hostile), hostile[:30], "device", hostile)  # type: ignore[attr-defined]
    await made(site, admin, "devices", {"id": "pump-7"})
    online = ("--url", site.url, "--token", admin)
    (code, head, err), (_, offline, why), exported = await asyncio.gather(
        mooring(tmp_path, "head", *online),
        mooring(tmp_path, "head"),
        mooring(tmp_path, "export", "audit.jsonl", *online),
    )
    assert (code, head, err) == (0, offline, ""), why
    assert exported == (0, "", "")
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) < 2_000
    assert b"\x1b" not in b"".join(lines)
    answers = await asyncio.gather(
        mooring(tmp_path, "verify", "--head", head, *online),
        mooring(tmp_path, "verify", "--head", head),
        mooring(tmp_path, "verify", "audit.jsonl", "--head", head),
    )
    for code, out, err in answers:
        assert (code, out) == (0, ""), err
        assert f"head {head.strip()}" in err
    tamper(tmp_path, "DELETE FROM audit WHERE seq = 2")
    (tmp_path / "audit.jsonl").write_bytes(b"\n".join([lines[0], b"[]", *lines[2:]]))
    answers = await asyncio.gather(
        mooring(tmp_path, "verify", *online), mooring(tmp_path, "verify"), mooring(tmp_path, "verify", "audit.jsonl")
    )
    for code, out, err in answers:
        assert code == 1, err
        assert "entry 2 is missing" in out
        assert "tampered" in err


async def test_what_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    answers = await asyncio.gather(
        mooring(tmp_path, "verify"),
        mooring(tmp_path, "verify", "missing.jsonl"),
        mooring(tmp_path, "verify", "--head", "7"),
    )
    for (code, out, err), says in zip(answers, ("no fleet's database", "No such file", "looks like"), strict=True):
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert says in err
    assert not (tmp_path / "fleet.db").exists()
