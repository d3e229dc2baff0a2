"""Artifacts and campaigns through the API: uploads as a stream, downloads as attachments."""

import io
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.web.conftest import Site, options_in
from web.options import WebOptions

ARTIFACTS = "/api/v1/artifacts"
CAMPAIGNS = "/api/v1/campaigns"
SHA = "a" * 64
HALF_A_FILE = (
    b'--x\r\nContent-Disposition: form-data; name="version"\r\n\r\n1\r\n--x\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf a fi'
)


@pytest.fixture
def web_options(tmp_path) -> WebOptions:  # type: ignore[no-untyped-def]
    return options_in(tmp_path, upload_limit_bytes=1_000_000)


def form(
    *fields: tuple[str, str], content: bytes | io.BytesIO = b"firmware", filename: str = "app.bin"
) -> aiohttp.FormData:
    found = aiohttp.FormData()
    for name, value in fields:
        found.add_field(name, value)
    found.add_field("file", content, filename=filename)
    return found


async def test_a_file_is_uploaded_and_comes_back_as_an_attachment(site: Site) -> None:
    content = bytes(range(256)) * 2000
    fields = (("version", "1.1.0"), ("description", "Fixes.\nAnd more."), ("sha256", SHA.upper()))
    made = await site.ask("POST", ARTIFACTS, data=form(*fields, content=content))
    assert made.status == 201, made.json
    assert (made.json["version"], made.json["name"], made.json["size"]) == ("1.1.0", "app.bin", len(content))
    assert made.json["sha256"] == SHA
    assert site.fleet.artifacts.largest_chunk <= 256 * 1024
    where = f"{ARTIFACTS}/{made.json['id']}/file"
    file = await site.ask("GET", where)
    assert file.body == content
    assert file.media == "application/octet-stream"
    assert file.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in file.headers["Content-Security-Policy"]
    part = await site.ask("GET", where, headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, content[10:20])
    assert (await site.ask("GET", where, role="viewer")).status == 403


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ((), "version"),
        ((("version", ""),), "version"),
        ((("version", "1\n2"),), "version"),
        ((("version", "1"), ("sha256", "abc")), "sha256"),
        ((("version", "1"), ("signed", "yes")), "signed"),
    ],
)
async def test_bad_fields_are_refused_before_the_file_is_read(
    site: Site, fields: tuple[tuple[str, str], ...], at_fault: str
) -> None:
    answer = await site.ask("POST", ARTIFACTS, data=form(*fields))
    assert answer.status == 422
    assert answer.json["errors"][0]["field"] == at_fault
    assert not site.fleet.artifacts.by_id


async def test_the_service_says_no_to_another_digest(site: Site) -> None:
    answer = await site.ask("POST", ARTIFACTS, data=form(("version", "1"), ("sha256", "0" * 64)))
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "sha256")


async def test_a_form_without_file_or_with_more_after_it_is_refused(site: Site) -> None:
    without = aiohttp.FormData({"version": "1"})
    without.add_field("name", "x", content_type="text/plain")
    assert (await site.ask("POST", ARTIFACTS, data=without)).status == 422
    after = form(("version", "1"))
    after.add_field("name", "late")
    answer = await site.ask("POST", ARTIFACTS, data=after)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "file")
    assert not site.fleet.artifacts.by_id


async def test_files_past_the_limit_are_413_also_when_their_length_is_not_told(site: Site) -> None:
    assert (
        await site.ask("POST", ARTIFACTS, data=form(("version", "1"), content=io.BytesIO(bytes(1_200_000))))
    ).status == 413

    head = b'--x\r\nContent-Disposition: form-data; name="version"\r\n\r\n1\r\n--x\r\n'

    async def chunks() -> AsyncIterator[bytes]:
        yield head + b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(12):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await site.ask("POST", ARTIFACTS, data=chunks(), headers=headers)).status == 413
    assert not site.fleet.artifacts.by_id


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"--x\r\n",
        b"nonsense",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nno version, and half a fi',
        b'--x\r\nContent-Disposition: form-data; name="version"\r\n\r\n1\r\n--x\r\nContent-Disp',
        HALF_A_FILE,
        b"--x\r\n\r\nno name\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="version"\r\n\r\n' + b"1" * 20_000 + b"\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="version"\r\n\r\n\xff\xfe\r\n--x--\r\n',
    ],
)
async def test_broken_forms_are_refused(site: Site, raw: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await site.ask("POST", ARTIFACTS, data=raw, headers=headers)).status in (400, 422)
    assert not site.fleet.artifacts.by_id


async def test_another_media_type_is_415(site: Site) -> None:
    assert (await site.ask("POST", ARTIFACTS, json={"version": "1"})).status == 415
    assert (await site.ask("POST", ARTIFACTS, data=b"x", headers={"Content-Type": "multipart/form-data"})).status == 400


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\..\\boot.ini", "<img src=x>", "x" * 500])
async def test_file_names_are_only_names(site: Site, name: str) -> None:
    made = await site.ask("POST", ARTIFACTS, data=form(("version", "1"), filename=name))
    assert made.status == 201
    assert "/" not in made.json["name"]
    assert "\\" not in made.json["name"]
    assert len(made.json["name"]) <= 128


async def test_a_campaign_is_planned_started_and_aborted(site: Site) -> None:
    artifact = (await site.ask("POST", ARTIFACTS, data=form(("version", "1.1.0")))).json
    body = {"name": "All pumps", "artifact": artifact["id"], "devices": ["pump-7"], "timeouts": {"rebooting_s": 60}}
    made = await site.ask("POST", CAMPAIGNS, json=body)
    assert (made.status, made.json["status"], made.json["total"]) == (201, "draft", 1)
    assert made.json["artifact"] == artifact
    assert (made.json["timeouts"]["rebooting_s"], made.json["timeouts"]["installing_s"]) == (60, 1800)
    where = f"{CAMPAIGNS}/{made.json['id']}"
    assert (await site.ask("POST", f"{where}/start")).json["status"] == "running"
    assert (await site.ask("POST", f"{where}/start")).status == 409
    jobs = (await site.ask("GET", f"{where}/jobs?status=queued")).json
    assert (jobs["items"][0]["device"], jobs["items"][0]["to_version"]) == ("pump-7", "1.1.0")
    assert (await site.ask("POST", f"{where}/abort")).json["status"] == "aborted"
    assert (await site.ask("POST", f"{where}/retry")).json["status"] == "running"


async def test_a_campaign_may_start_at_once(site: Site) -> None:
    await site.ask("POST", ARTIFACTS, data=form(("version", "1.1.0")))
    body = {"name": "Now", "artifact": "A0", "devices": ["pump-7"], "start": True}
    assert (await site.ask("POST", CAMPAIGNS, json=body)).json["status"] == "running"
    for bad in ({"devices": []}, {"devices": ["a b"]}, {"artifact": "../x"}, {"timeouts": {"rebooting_s": 0}}):
        assert (await site.ask("POST", CAMPAIGNS, json={**body, **bad})).status == 422
