"""Requests that are made to cost more than they are worth: refused in the API's words, while others are served."""

import asyncio

import pytest

from tests.web.conftest import Site
from web import uploads

_LOGIN = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_REFRESH = b"POST /api/v1/auth/refresh HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
_FORM = (
    b"POST /api/v1/artifacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def part(name: bytes, value: bytes, headers: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%b"\r\n%b\r\n%b\r\n' % (name, headers, value)


REQUESTS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "100,000 headers": (_LOGIN + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n", (400, 431)),
    "10,000 cookies": (_REFRESH + b"Cookie: " + b"a=b; " * 10_000 + b"\r\n\r\n", (400, 431)),
    "1,300 cookies that are none": (_REFRESH + b"Cookie: " + b"[]=b; " * 1_300 + b"\r\n\r\n", (401,)),
    "a query of 100,000 names": (
        b"GET /api/v1/devices?" + b"a&" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        (400, 414),
    ),
    "chunks of a byte": (_LOGIN + _CHUNKED + b"1\r\n \r\n" * 100_000 + _END, (422,)),
    "chunks of a byte past the limit": (_LOGIN + _CHUNKED + b"1\r\n \r\n" * 1_100_000 + _END, (413,)),
    "chunks with extensions": (_LOGIN + _CHUNKED + b"1;x=" + b"y" * 1_000_000 + b"\r\n \r\n" + _END, (400, 422)),
    "trailers": (_LOGIN + _CHUNKED + chunk(b"{}") + b"0\r\n" + b"T: x\r\n" * 100_000 + b"\r\n", (400, 422, 431)),
    "two lengths": (_LOGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", (400,)),
    "a length and chunks": (_LOGIN + b"Content-Length: 2\r\n" + _CHUNKED + _END, (400,)),
    "100,000 parts": (
        _FORM + chunk(b"".join(part(b"f%d" % n, b"1") for n in range(100_000)) + b"--b--\r\n") + _END,
        (422,),
    ),
    "one field 100,000 times": (_FORM + chunk(part(b"version", b"1") * 100_000 + b"--b--\r\n") + _END, (422,)),
    "a part with 100,000 headers": (
        _FORM
        + chunk(part(b"version", b"1", b"".join(b"X-%d: y\r\n" % n for n in range(100_000))) + b"--b--\r\n")
        + _END,
        (400,),
    ),
    "a part with a header of 1 MB": (
        _FORM + chunk(part(b"version", b"1", b"X: " + b"y" * 1_000_000 + b"\r\n") + b"--b--\r\n") + _END,
        (400,),
    ),
    "a part whose header is none": (_FORM + chunk(part(b"version", b"1", b"\x00\r\n") + b"--b--\r\n") + _END, (400,)),
    "a disposition that is none": (
        _FORM + chunk(b"--b\r\nContent-Disposition: form-data; name\r\n\r\n1\r\n--b--\r\n") + _END,
        (400,),
    ),
    "a character set of 1 KB": (_FORM + chunk(part(b"_charset_", b"x" * 1000) + b"--b--\r\n") + _END, (400,)),
    "parts in parts": (
        _FORM
        + chunk(b"".join(b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" for _ in range(10_000)))
        + _END,
        (400,),
    ),
    "a field of 1 MB": (_FORM + chunk(part(b"version", b"x" * 1_000_000) + b"--b--\r\n") + _END, (422,)),
    "400 KB before the first part": (_FORM + chunk(b"\r\n" * 200_000) + _END, (400,)),
    "a line of 4 MB before the first part": (_FORM + chunk(b"x" * 4_000_000) + _END, (400,)),
    "no boundary": (_FORM.replace(b"; boundary=b", b"") + _END, (400,)),
    "a boundary of 4 KB": (_FORM.replace(b"boundary=b", b"boundary=" + b"b" * 4000) + _END, (400,)),
}


@pytest.mark.parametrize(("sent", "statuses"), REQUESTS.values(), ids=REQUESTS)
async def test_a_hostile_request_is_refused_while_others_are_served(
    site: Site, sent: bytes, statuses: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)

    async def attack() -> bytes:
        try:
            writer.write(sent)
            await writer.drain()
        except ConnectionError:
            pass  # it may be cut off before all is sent; what was answered can still be read
        try:
            async with asyncio.timeout(30):
                return await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""

    attacking = asyncio.create_task(attack())
    assert (await site.ask("GET", "/api/v1/devices")).status == 200
    head = await attacking
    writer.close()
    if head:
        assert int(head.split()[1]) in statuses, head
        assert b"application/problem+json" in head
    assert (await site.ask("GET", "/api/v1/devices")).status == 200
    assert "Traceback" not in caplog.text
    assert len(caplog.records) < 5, caplog.text[:2000]
    assert (await site.fleet.artifacts.list()).items == []


@pytest.mark.parametrize("begun", [b"", part(b"version", b"1"), b"--b\r\nContent-Disp"])
async def test_a_form_that_does_not_come_on_is_408(site: Site, begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_FIELDS_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(_FORM + chunk(begun + b"\r\n"))
    async with asyncio.timeout(30):
        assert int((await reader.readline()).split()[1]) == 408
    writer.close()
    await writer.wait_closed()
