"""The device HTTP API: tokens, uplinks, mailboxes, downloads, and clients that misbehave. Over a real socket."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.reason import ReasonCode
from gateway.link import TAKEN, Downlink, Outcome
from gateway.links.http import ArtifactFile, AttendanceOptions, HttpLink, HttpOptions, RouteOptions
from gateway.refusals import Refusal, busy, held_back, refuse, store_full, unknown_device
from tests.gateway.test_link_contract import TIMEOUT_S, Recorder

FIRMWARE = bytes(range(256)) * 1000
JSON = {"Content-Type": "application/json"}


class Desk:
    """A desk with one artifact; tokens are "token-" and the device id."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.files: dict[tuple[str, str], ArtifactFile] = {}
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def authenticate(self, secret: str, *, device_id: str | None = None, address: str = "") -> str | None:
        known = secret.startswith("token-") and secret not in self.revoked
        self.asked.set()
        await self.may_answer.wait()
        owner = secret.removeprefix("token-") if known else None
        return owner if device_id in (None, owner) else None

    async def artifact(self, device_id: str, artifact_id: str) -> ArtifactFile | None:
        return self.files.get((device_id, artifact_id))

    async def provision(self, body: bytes, address: str, link: str) -> tuple[int, dict[str, object]]:
        return 202, {"asked": body.decode(), "address": address, "link": link, "retry_after": 30}


OPTIONS = HttpOptions(port=0, routes=RouteOptions(settle_s=0.0, twin_timeout_s=0.2, body_patience_s=5.0))


class Api:
    """The link, its desk, and a device's side of it."""

    def __init__(self, options: HttpOptions = OPTIONS) -> None:
        self.recorder = Recorder()
        self.desk = Desk()
        self.now = 0.0
        self.link = HttpLink(options, self.desk, clock=lambda: self.now)

    async def open(self) -> None:
        await self.link.start(self.recorder)
        self.session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.link.port}/device/v1/",
            headers={"Authorization": "Bearer token-pump-7"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self.session.close()
        await self.link.stop()

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        """(status, body as JSON or bytes, response); an error has to be a problem."""
        async with self.session.request(method, path, **more) as response:
            body = await response.read()
            kind = response.content_type
            if response.status >= 400 and method != "HEAD":
                assert kind == "application/problem+json", (response.status, kind, body)
                problem = json.loads(body)
                assert problem["type"] == "about:blank"
                assert problem["status"] == response.status
                assert problem["title"]
                assert problem["detail"]
            assert "Python" not in response.headers["Server"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            return response.status, json.loads(body) if kind.endswith("json") else body, response

    async def post(self, path: str, body: object, **more: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        return await self.ask("POST", path, data=json.dumps(body), headers=JSON, **more)

    async def send(self, channel: str, **message: object) -> bool:
        return await self.link.send(Downlink(device_id="pump-7", channel=channel, payload=json.dumps(message).encode()))

    async def raw(self, data: bytes, *, count: int = 65536) -> bytes:
        """What the server answers to these bytes, until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.link.port)
        writer.write(data)
        async with asyncio.timeout(TIMEOUT_S):
            answer = await reader.read(count)
        writer.close()
        return answer


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    await api.open()
    yield api
    await api.close()


@pytest.fixture
def firmware(api: Api, tmp_path: Path) -> ArtifactFile:
    path = tmp_path / "01J"
    path.write_bytes(FIRMWARE)
    file = ArtifactFile(
        path=path, size=len(FIRMWARE), sha256=hashlib.sha256(FIRMWARE).hexdigest(), name='fw "1".bin\r\nX: y'
    )
    api.desk.files["pump-7", "a1"] = file
    return file


# Tokens


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic cHVtcA==", "Bearer wrong", "token-pump-7"])
async def test_without_a_valid_token_there_is_nothing(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{api.link.port}") as session:
        for method, path in [("POST", "telemetry"), ("GET", "commands"), ("GET", "artifacts/a1"), ("PATCH", "twin")]:
            async with session.request(method, f"/device/v1/{path}", headers=headers) as response:
                assert response.status == 401
                assert response.content_type == "application/problem+json"
                assert response.headers["WWW-Authenticate"].startswith('Bearer realm="mooring"')
    assert api.recorder.presence == []


async def test_a_device_may_say_who_it_is_beside_its_token(api: Api) -> None:
    for given, status in (("pump-7:token-pump-7", 200), ("pump-8:token-pump-7", 401), ("pump/7:token-pump-7", 401)):
        basic = {"Authorization": "Basic " + base64.b64encode(given.encode()).decode()}
        assert (await api.ask("GET", "commands", headers=basic))[0] == status
    for odd in (b"pump-7", b":x", b"pump-7:", b"\xff:x"):
        basic = {"Authorization": "Basic " + base64.b64encode(odd).decode()}
        assert (await api.ask("GET", "commands", headers=basic))[0] == 401


async def test_two_tokens_are_none(api: Api) -> None:
    answer = await api.raw(
        b"GET /device/v1/commands HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer token-pump-7\r\nAuthorization: Bearer token-pump-8\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 401")


async def test_a_kick_while_the_desk_looks_makes_it_look_again(api: Api) -> None:
    api.desk.may_answer.clear()
    asking = asyncio.create_task(api.ask("GET", "commands"))
    await asyncio.wait_for(api.desk.asked.wait(), TIMEOUT_S)
    api.desk.revoked.add("token-pump-7")
    await api.link.kick("pump-7", "revoked")
    api.desk.may_answer.set()
    status, _, _ = await asking
    assert status == 401


async def test_a_kick_ends_waiting_polls_with_401(api: Api) -> None:
    polls = [asyncio.create_task(api.ask("GET", f"{path}?wait=60")) for path in ("commands", "ota")]
    await api.recorder.until(lambda: api.recorder.events("pump-7") == ["connected"])
    attendance = api.link._attendance
    assert attendance is not None
    async with asyncio.timeout(TIMEOUT_S):
        while attendance._devices["pump-7"].polls < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    api.desk.revoked.add("token-pump-7")
    assert await api.link.kick("pump-7", "revoked") == 2
    assert [status for status, _, _ in await asyncio.wait_for(asyncio.gather(*polls), TIMEOUT_S)] == [401, 401]
    status, _, _ = await api.ask("GET", "commands")
    assert status == 401
    assert api.recorder.events("pump-7") == ["connected", "disconnected"]


# Up


@pytest.mark.parametrize(
    ("method", "path", "content_type", "body", "channel", "arrives", "status"),
    [
        ("POST", "telemetry", "application/json", b'{"t": 1}', "telemetry", b'{"t": 1}', 202),
        ("POST", "telemetry", "application/json; charset=utf-8", b"{}", "telemetry", b"{}", 202),
        ("POST", "telemetry", "application/cbor", b"\xa0", "telemetry", b"\xa0", 202),
        ("POST", "telemetry", "application/senml+json", b"[]", "telemetry", b"[]", 202),
        ("POST", "telemetry", "application/senml+cbor", b"\x80", "telemetry", b"\x80", 202),
        ("POST", "telemetry", "application/octet-stream", b"\x1f\x8b", "telemetry", b"\x1f\x8b", 202),
        ("POST", "events", "application/json", b'{"level": "info"}', "events", b'{"level": "info"}', 202),
        ("PATCH", "twin", "application/merge-patch+json", b'{"a": null}', "twin/reported", b'{"a": null}', 200),
        ("PATCH", "twin", "application/json", b"{}", "twin/reported", b"{}", 200),
        (
            "POST",
            "commands/01J/status",
            "application/json",
            b'{"status": "accepted"}',
            "commands/01J/status",
            None,
            202,
        ),
        ("POST", "ota/j1/status", "application/json", b'{"p":1}', "ota/status", b'{"p":1,"job":"j1"}', 202),
        ("POST", "ota/j1/status", "application/json", b'{"job":"j1"}', "ota/status", b'{"job":"j1"}', 202),
    ],
)
async def test_uplinks_take_the_channels_of_mqtt(
    api: Api, method: str, path: str, content_type: str, body: bytes, channel: str, arrives: bytes | None, status: int
) -> None:
    answer, content, _ = await api.ask(method, path, data=body, headers={"Content-Type": content_type})
    assert (answer, content) == (status, {"stored": True})
    (uplink,) = api.recorder.uplinks_seen
    assert (uplink.device_id, uplink.channel) == ("pump-7", channel)
    assert uplink.payload == (body if arrives is None else arrives)
    is_kept = content_type.endswith(("cbor", "octet-stream")) or "senml" in content_type
    assert uplink.content_type == (content_type if is_kept else "application/json")


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress)]
)
async def test_compressed_telemetry_is_handed_on_as_it_came(
    api: Api, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = pack(b'{"t": 1}')
    status, _, _ = await api.ask("POST", "telemetry", data=body, headers={**JSON, "Content-Encoding": coding})
    assert status == 202
    assert api.recorder.uplinks_seen[0].payload == body


async def test_the_outcomes_data_is_in_the_answer(api: Api) -> None:
    api.recorder.answer = lambda uplink: Outcome(data={"readings": 3})
    status, body, _ = await api.post("telemetry", {})
    assert (status, body) == (202, {"stored": True, "readings": 3})


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (refuse(Refusal.INVALID_JSON, "no"), 400),
        (refuse(Refusal.INVALID_CBOR, "no"), 400),
        (refuse(Refusal.TOO_LARGE, "no"), 413),
        (refuse(Refusal.BAD_TIMESTAMP, "no"), 422),
        (refuse(Refusal.TYPE_CHANGED, "no"), 422),
        (refuse(Refusal.TOO_FAST, "no", retry_after_s=0.2), 429),
        (unknown_device("pump-7"), 401),
        (store_full(7.1), 503),
        (held_back(7.1), 429),
        (busy(), 503),
        (Outcome(code=ReasonCode.UNSPECIFIED_ERROR), 500),
    ],
)
async def test_a_refusal_becomes_a_status(api: Api, outcome: Outcome, status: int) -> None:
    api.recorder.answer = lambda uplink: outcome
    answer, problem, response = await api.post("telemetry", {})
    assert answer == status
    assert problem.get("reason", "") == outcome.reason
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    if outcome.retry_after_s:
        assert int(response.headers["Retry-After"]) >= outcome.retry_after_s


async def test_a_gateway_that_does_not_answer_in_time_is_503() -> None:
    api = Api(replace(OPTIONS, routes=RouteOptions(uplink_timeout_s=0.05)))
    await api.open()
    api.recorder.holding = True
    status, _, response = await api.post("telemetry", {})
    assert (status, response.headers["Retry-After"]) == (503, "5")
    api.recorder.release()  # late, and nobody minds
    await api.close()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("telemetry", {"Content-Type": "text/plain"}, 415),
        ("telemetry", {"Content-Type": "application/json; charset=utf-16"}, 415),
        ("telemetry", {"Content-Type": "application/json", "Content-Encoding": "br"}, 415),
        ("telemetry", {"Content-Type": "application/json", "Content-Encoding": "gzip, gzip"}, 415),
        ("telemetry", {"Content-Type": "application/json", "Content-Encoding": "deflate"}, 400),
        ("telemetry", {"Content-Type": "application/sensml+json"}, 415),
        ("telemetry", {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}, 415),
        ("events", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ("events", {"Content-Type": "application/cbor"}, 415),
        ("commands/a%2Fb/status", JSON, 404),
        ("commands/%00/status", JSON, 404),
        ("nothing", JSON, 404),
        ("provision", {"Content-Type": "text/plain"}, 415),
        ("commands", JSON, 405),
    ],
)
async def test_what_cannot_be_taken_says_why(api: Api, path: str, headers: dict[str, str], status: int) -> None:
    body = gzip.compress(b"{}") if "Content-Encoding" in headers else b"{}"
    answer, _, response = await api.ask("POST", path, data=body, headers=headers)
    assert answer == status
    assert ("Allow" in response.headers) == (status == 405)
    assert api.recorder.uplinks_seen == []


async def test_who_has_no_credential_yet_asks_for_one(api: Api) -> None:
    headers = {**JSON, "Authorization": ""}
    status, answer, response = await api.ask("POST", "provision", data=b'{"id": "x"}', headers=headers)
    assert (status, answer["asked"], answer["address"]) == (202, '{"id": "x"}', "127.0.0.1")
    assert response.headers["Retry-After"] == "30"
    assert api.recorder.uplinks_seen == []
    status, _, _ = await api.ask("POST", "provision", data=b" " * 70_000, headers=headers)
    assert status == 413


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[]", 422), (b'{"job": "other"}', 422), (b"NaN", 400), (b"[" * 5000, 400)]
)
async def test_a_job_report_has_to_be_an_object_about_that_job(api: Api, body: bytes, status: int) -> None:
    answer, _, _ = await api.ask("POST", "ota/j1/status", data=body, headers=JSON)
    assert answer == status


async def test_a_body_past_the_limit_is_413_whether_declared_or_not(api: Api) -> None:
    exactly = b'"' + b"x" * (64 * 1024 - 2) + b'"'
    status, _, _ = await api.ask("POST", "telemetry", data=exactly, headers=JSON)
    assert status == 202

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(66):
            yield b"x" * 1024

    for body in (exactly + b" ", chunks()):
        status, _, _ = await api.ask("POST", "telemetry", data=body, headers=JSON)
        assert status == 413


# Down


async def test_a_poll_that_waits_gets_the_command_at_once(api: Api) -> None:
    poll = asyncio.create_task(api.ask("GET", "commands?wait=30"))
    await api.recorder.until(lambda: api.recorder.events("pump-7") == ["connected"])
    assert await api.send("commands/c1", name="reboot", params={"delay": 5}, expires_at=9999999999999)
    status, body, response = await asyncio.wait_for(poll, TIMEOUT_S)
    item = {"id": "c1", "name": "reboot", "params": {"delay": 5}, "expires_at": 9999999999999}
    assert (status, body) == (200, {"items": [item]})
    assert response.headers["Cache-Control"] == "no-store"
    assert (await api.ask("GET", "commands"))[1] == {"items": []}


async def test_a_poll_whose_device_hangs_up_takes_no_command_along(api: Api) -> None:
    poll = asyncio.create_task(api.ask("GET", "commands?wait=30"))
    await api.recorder.until(lambda: api.recorder.events("pump-7") == ["connected"])
    attendance = api.link._attendance
    assert attendance is not None
    device = attendance._devices["pump-7"]
    async with asyncio.timeout(TIMEOUT_S):
        while not device.polls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        poll.cancel()
        while device.polls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await api.send("commands/c1", name="reboot")
    assert (await api.ask("GET", "commands"))[1] == {"items": [{"id": "c1", "name": "reboot"}]}


async def test_a_device_asking_after_a_silence_gets_what_the_fleet_sends_on_its_appearance() -> None:
    api = Api(replace(OPTIONS, routes=RouteOptions(settle_s=20.0)))
    await api.open()
    asking = asyncio.create_task(api.ask("GET", "commands"))
    await api.recorder.until(lambda: api.recorder.events("pump-7") == ["connected"])
    assert await api.send("commands/c1", name="reboot")
    assert (await asyncio.wait_for(asking, TIMEOUT_S))[1]["items"][0]["id"] == "c1"
    await api.close()


async def test_an_offer_waits_until_the_device_reports_on_its_job(api: Api) -> None:
    assert (await api.ask("GET", "ota"))[0] == 204
    assert await api.send("ota/offer", job="j1", version="1.1.0")
    assert (await api.ask("GET", "ota?wait=5"))[:2] == (200, {"job": "j1", "version": "1.1.0"})
    assert (await api.ask("GET", "ota"))[0] == 204
    await api.post("ota/j1/status", {"status": "downloading"})
    attendance = api.link._attendance
    assert attendance is not None
    assert attendance._devices["pump-7"].mailbox._offer is None


async def test_getting_the_twin_asks_for_it_and_waits(api: Api) -> None:
    assert not await api.send("twin", version=1)

    def answer(uplink: object) -> Outcome:
        attendance = api.link._attendance
        assert attendance is not None
        sent = attendance.deliver(Downlink(device_id="pump-7", channel="twin", payload=b'{"version": 3}'))
        assert sent
        return TAKEN

    api.recorder.answer = answer
    assert (await api.ask("GET", "twin"))[:2] == (200, {"version": 3})
    assert api.recorder.uplinks_seen[0].channel == "twin/get"
    api.recorder.answer = lambda uplink: TAKEN
    assert (await api.ask("GET", "twin"))[0] == 503
    api.recorder.answer = lambda uplink: busy()
    assert (await api.ask("GET", "twin"))[0] == 503


@pytest.mark.parametrize("wait", ["-1", "61", "x", "", "1e3", "nan", "60.1", "٣", "9" * 400])
async def test_a_bad_wait_is_422(api: Api, wait: str) -> None:
    status, problem, _ = await api.ask("GET", "commands", params={"wait": wait})
    assert status == 422
    assert problem["errors"][0]["field"] == "wait"


async def test_one_device_may_not_wait_in_too_many_requests(api: Api) -> None:
    polls = [asyncio.create_task(api.ask("GET", "commands?wait=60")) for _ in range(4)]
    attendance = api.link._attendance
    assert attendance is not None
    await api.recorder.until(lambda: api.recorder.events("pump-7") == ["connected"])
    async with asyncio.timeout(TIMEOUT_S):
        while attendance._devices["pump-7"].polls < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    status, _, response = await api.ask("GET", "ota?wait=1")
    assert status == 429
    assert "Retry-After" in response.headers
    assert (await api.ask("GET", "ota"))[0] == 204  # not waiting is always possible
    await api.send("commands/c1", name="reboot")
    done, waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED, timeout=TIMEOUT_S)
    assert len(done) == 1
    for poll in waiting:
        poll.cancel()


async def test_what_http_devices_cannot_ask_for_is_not_taken(api: Api) -> None:
    await api.ask("GET", "commands")
    for channel in ("twin/desired", "status", "ota/chunk/j1/0", "commands"):
        assert not await api.send(channel, version=1)


# Presence


async def test_a_device_is_there_while_it_asks_and_gone_a_minute_later(api: Api) -> None:
    await api.ask("GET", "commands")
    api.now = 59.0
    api.link.expire_silent()
    await api.ask("GET", "commands")
    api.now = 118.9
    api.link.expire_silent()
    assert api.recorder.events("pump-7") == ["connected"]
    await api.send("commands/c1", name="reboot")
    api.now = 119.0
    api.link.expire_silent()
    assert api.recorder.presence[1:] == [("disconnected", "pump-7", "no request for 60 s")]
    assert not await api.send("commands/c2", name="reboot")
    attendance = api.link._attendance
    assert attendance is not None
    assert attendance._budget.used == 0


async def test_a_device_that_waits_is_not_silent(api: Api) -> None:
    poll = asyncio.create_task(api.ask("GET", "commands?wait=30"))
    await api.recorder.until(lambda: api.recorder.events("pump-7") == ["connected"])
    api.now = 1000.0
    api.link.expire_silent()
    assert api.recorder.events("pump-7") == ["connected"]
    assert await api.send("commands/c1", name="reboot")
    assert (await poll)[1]["items"]


async def test_more_devices_than_may_be_kept_are_503() -> None:
    api = Api(replace(OPTIONS, attendance=AttendanceOptions(devices_limit=1)))
    await api.open()
    assert (await api.ask("GET", "commands"))[0] == 200
    status, _, _ = await api.ask("GET", "commands", headers={"Authorization": "Bearer token-pump-8"})
    assert status == 503
    assert api.recorder.events("pump-8") == []
    await api.close()


# Downloads


async def test_a_download_is_whole_and_named(api: Api, firmware: ArtifactFile) -> None:
    status, body, response = await api.ask("GET", "artifacts/a1")
    assert (status, body) == (200, FIRMWARE)
    assert response.headers["ETag"] == f'"{firmware.sha256}"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Cache-Control"].startswith("private")
    assert response.headers["Content-Disposition"] == 'attachment; filename="fw__1_.bin__X__y"'
    assert response.content_type == "application/octet-stream"


async def test_fetching_firmware_is_no_sign_of_living_here(api: Api, firmware: ArtifactFile) -> None:
    """A device on MQTT takes its firmware over HTTP: it neither appears here nor falls silent afterwards."""
    assert (await api.ask("GET", "artifacts/a1"))[0] == 200
    assert api.recorder.events("pump-7") == []
    assert not await api.link.send(Downlink(device_id="pump-7", channel="commands/c1", payload=b"{}"))
    assert await api.link.kick("pump-7", "revoked") == 0


async def test_head_tells_the_length_and_sends_nothing(api: Api, firmware: ArtifactFile) -> None:
    status, body, response = await api.ask("HEAD", "artifacts/a1", headers={"Range": "bytes=0-9"})
    assert (status, body, response.headers["Content-Length"]) == (200, b"", str(len(FIRMWARE)))


@pytest.mark.parametrize(
    ("header", "first", "end"), [("bytes=0-0", 0, 1), ("bytes=1000-", 1000, 256000), ("bytes=-5", 255995, 256000)]
)
async def test_one_range_of_it(api: Api, firmware: ArtifactFile, header: str, first: int, end: int) -> None:
    status, body, response = await api.ask("GET", "artifacts/a1", headers={"Range": header})
    assert (status, body) == (206, FIRMWARE[first:end])
    assert response.headers["Content-Range"] == f"bytes {first}-{end - 1}/256000"
    assert response.headers["Content-Length"] == str(end - first)


async def test_a_range_outside_is_416_and_several_are_the_whole(api: Api, firmware: ArtifactFile) -> None:
    status, _, response = await api.ask("GET", "artifacts/a1", headers={"Range": "bytes=256000-"})
    assert (status, response.headers["Content-Range"]) == (416, "bytes */256000")
    status, body, _ = await api.ask("GET", "artifacts/a1", headers={"Range": "bytes=0-1,5-6"})
    assert (status, body) == (200, FIRMWARE)


async def test_a_resume_goes_on_only_in_the_same_file(api: Api, firmware: ArtifactFile) -> None:
    same = {"Range": "bytes=1000-", "If-Range": f'"{firmware.sha256}"'}
    assert (await api.ask("GET", "artifacts/a1", headers=same))[0] == 206
    for other in ('"old"', f'W/"{firmware.sha256}"', "Wed, 21 Oct 2037 07:28:00 GMT"):
        status, body, _ = await api.ask("GET", "artifacts/a1", headers={"Range": "bytes=1000-", "If-Range": other})
        assert (status, body) == (200, FIRMWARE)
    status, body, _ = await api.ask("GET", "artifacts/a1", headers={"If-None-Match": f'"x", W/"{firmware.sha256}"'})
    assert (status, body) == (304, b"")


async def test_other_devices_and_other_names_get_404(api: Api, firmware: ArtifactFile) -> None:
    assert (await api.ask("GET", "artifacts/a2"))[0] == 404
    assert (await api.ask("GET", "artifacts/..%2f..%2fetc%2fpasswd"))[0] == 404
    headers = {"Authorization": "Bearer token-pump-8"}
    assert (await api.ask("GET", "artifacts/a1", headers=headers))[0] == 404


async def test_a_file_of_another_length_is_not_sent(
    api: Api, firmware: ArtifactFile, caplog: pytest.LogCaptureFixture
) -> None:
    firmware.path.write_bytes(FIRMWARE + b"x")
    assert (await api.ask("GET", "artifacts/a1"))[0] == 503
    firmware.path.unlink()
    assert (await api.ask("GET", "artifacts/a1"))[0] == 503
    assert [record.levelno for record in caplog.records if record.name.endswith("http_artifact")] == [logging.ERROR] * 2


async def test_a_kick_breaks_off_a_download(api: Api, firmware: ArtifactFile, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    api.desk.files["pump-7", "a1"] = replace(firmware, path=big, size=64 * 1024 * 1024)
    async with api.session.get("artifacts/a1") as response:
        assert response.status == 200
        await response.content.readexactly(1000)
        assert await api.link.kick("pump-7", "revoked") == 1
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_after_a_kick_not_even_what_the_kernel_holds_is_sent(
    api: Api, firmware: ArtifactFile, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    api.desk.files["pump-7", "a1"] = replace(firmware, path=big, size=64 * 1024 * 1024)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", api.link.port))
        request = b"GET /device/v1/artifacts/a1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-pump-7\r\n\r\n"
        await loop.sock_sendall(slow, request)
        before = 0
        while before < 2_000_000:  # meanwhile the kernel's buffer for the connection grows
            before += len(await loop.sock_recv(slow, 65_536))
            await asyncio.sleep(0.002)
        await api.link.kick("pump-7", "revoked")
        after = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := await loop.sock_recv(slow, 65_536):
                after += len(chunk)
        assert after < 100_000


async def test_a_device_that_stops_reading_is_broken_off_and_downloads_are_bounded(tmp_path: Path) -> None:
    api = Api(replace(OPTIONS, downloads_limit=1, download_stall_s=0.3))
    await api.open()
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    sha256 = hashlib.sha256(b"").hexdigest()
    api.desk.files["pump-7", "a1"] = ArtifactFile(path=big, size=64 * 1024 * 1024, sha256=sha256, name="big")
    reader, writer = await asyncio.open_connection("127.0.0.1", api.link.port)
    writer.write(b"GET /device/v1/artifacts/a1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-pump-7\r\n\r\n")
    await reader.readexactly(1000)
    status, _, response = await api.ask("GET", "artifacts/a1")
    assert (status, response.headers["Retry-After"]) == (503, "10")
    downloads = api.link._downloads
    assert downloads is not None
    async with asyncio.timeout(TIMEOUT_S):
        while downloads.active:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    writer.close()
    await api.close()


# Clients that misbehave


async def test_a_header_that_does_not_end_is_cut_off() -> None:
    api = Api(replace(OPTIONS, header_timeout_s=0.1))
    await api.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.link.port)
    writer.write(b"GET /device/v1/commands HTTP/1.1\r\nHost:")
    assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b""
    writer.close()
    # The second request of a connection, too; and a long poll is not cut off.
    reader, writer = await asyncio.open_connection("127.0.0.1", api.link.port)
    request = b"GET /device/v1/commands?wait=0.5 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-pump-7\r\n\r\n"
    writer.write(request)
    assert (await asyncio.wait_for(reader.readuntil(b'{"items":[]}'), TIMEOUT_S)).startswith(b"HTTP/1.1 200")
    writer.write(request[:50])
    assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b""
    writer.close()
    await api.close()


async def test_a_body_that_does_not_come_is_408() -> None:
    api = Api(replace(OPTIONS, routes=RouteOptions(body_patience_s=0.05)))
    await api.open()
    answer = await api.raw(
        b"POST /device/v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-pump-7\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer
    assert api.recorder.uplinks_seen == []
    await api.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
async def test_what_is_not_http_gets_a_problem_and_no_stack_trace(
    api: Api, data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await api.raw(data)
    assert answer.split()[1] == b"%d" % status, answer
    assert b"application/problem+json" in answer
    assert b"Python" not in answer
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_connections_are_bounded_in_all_and_by_address() -> None:
    for bounds in ({"connections_limit": 2}, {"connections_per_address": 2}):
        api = Api(replace(OPTIONS, **bounds))
        await api.open()
        opened = [await asyncio.open_connection("127.0.0.1", api.link.port) for _ in range(2)]
        async with asyncio.timeout(TIMEOUT_S):
            while api.link.connections < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", api.link.port)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b""
        writer.close()
        opened[0][1].close()
        async with asyncio.timeout(TIMEOUT_S):
            while api.link.connections > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await api.ask("GET", "commands"))[0] == 200
        opened[1][1].close()
        await api.close()
        assert api.link.connections == 0


async def test_a_failure_of_ours_is_500_without_its_story(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(device_id: str, artifact_id: str) -> ArtifactFile | None:
        raise RuntimeError("secret path")

    api.desk.artifact = broken  # type: ignore[method-assign]
    status, problem, _ = await api.ask("GET", "artifacts/a1")
    assert status == 500
    assert "secret" not in json.dumps(problem)
    assert "secret path" in caplog.text


# Start and stop


async def test_stop_ends_waiting_polls_with_what_there_is(api: Api) -> None:
    polls = [asyncio.create_task(api.ask("GET", f"{path}?wait=60")) for path in ("commands", "ota")]
    attendance = api.link._attendance
    assert attendance is not None
    await api.recorder.until(lambda: api.recorder.events("pump-7") == ["connected"])
    async with asyncio.timeout(TIMEOUT_S):
        while attendance._devices["pump-7"].polls < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await api.link.stop()
        assert [status for status, _, _ in await asyncio.gather(*polls)] == [200, 204]
    assert api.recorder.presence[-1] == ("disconnected", "pump-7", "server shutting down")


async def test_stop_lets_a_post_finish(api: Api) -> None:
    api.recorder.holding = True
    posting = asyncio.create_task(api.post("telemetry", {}))
    await api.recorder.until(lambda: len(api.recorder.uplinks_seen) == 1)
    stopping = asyncio.create_task(api.link.stop())
    await asyncio.sleep(0.01)
    api.recorder.release()
    assert (await posting)[0] == 202
    await stopping


async def test_a_port_in_use_is_an_error_and_leaves_nothing_behind() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        link = HttpLink(replace(OPTIONS, port=taken.getsockname()[1]), Desk())
        with pytest.raises(OSError, match="in use"):
            await link.start(Recorder())
    await link.stop()
