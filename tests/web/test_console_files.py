"""The console's files: what is served, how long it is kept, and what never is."""

import gzip
import os
from pathlib import Path

import pytest

from tests.web.conftest import Site, raw_get
from web.options import WebOptions


@pytest.fixture
def built(web_options: WebOptions) -> Path:
    directory = web_options.console_dir
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text("<!doctype html><title>Console</title>")
    (directory / "assets" / "index-abc123.js").write_text("console.log(1)")
    (directory / "assets" / "index-abc123.js.gz").write_bytes(gzip.compress(b"console.log(1)"))
    (directory / "favicon.svg").write_text("<svg/>")
    (directory / ".hidden").write_text("hidden")
    secret = directory.parent / "secret.txt"
    secret.write_text("secret")
    os.symlink(secret, directory / "link.txt")
    return directory


async def test_without_a_build_there_is_a_page_that_says_how(site: Site) -> None:
    answer = await site.ask("GET", "/", role=None)
    assert (answer.status, answer.media) == (200, "text/html")
    assert b"make console" in answer.body
    assert b'href="/api/docs"' in answer.body
    assert (await site.ask("GET", "/assets/x.js", role=None)).status == 404


async def test_assets_are_kept_for_ever_and_the_index_never(built: Path, site: Site) -> None:
    asset = await site.ask("GET", "/assets/index-abc123.js", role=None)
    assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert asset.media in ("text/javascript", "application/javascript")
    for path in ("/", "/index.html"):
        index = await site.ask("GET", path, role=None)
        assert (index.headers["Cache-Control"], index.media) == ("no-cache", "text/html")
    icon = await site.ask("GET", "/favicon.svg", role=None)
    assert (icon.headers["Cache-Control"], icon.media) == ("no-cache", "image/svg+xml")


async def test_a_page_that_is_unchanged_keeps_the_policy_it_came_with(built: Path, site: Site) -> None:
    first = await site.ask("GET", "/", role=None)
    assert "script-src 'self'" in first.headers["Content-Security-Policy"]
    again = await site.ask("GET", "/", role=None, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    # A browser puts the headers of a 304 in place of the stored page's: any policy here would become the page's.
    assert "Content-Security-Policy" not in again.headers
    assert again.headers["X-Content-Type-Options"] == "nosniff"


async def test_compressed_twins_are_used_when_they_are_wanted(built: Path, site: Site) -> None:
    wanted = await site.ask("GET", "/assets/index-abc123.js", role=None, headers={"Accept-Encoding": "gzip"})
    assert wanted.headers["Content-Encoding"] == "gzip"
    assert wanted.body == b"console.log(1)"
    plain = await site.ask("GET", "/assets/index-abc123.js", role=None, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers


@pytest.mark.parametrize("path", ["/devices", "/devices/pump.7:a", "/login?code=x", "/setup?token=y", "/campaigns/01J"])
async def test_the_consoles_own_addresses_are_its_index(built: Path, site: Site, path: str) -> None:
    answer = await site.ask("GET", path, role=None)
    assert (answer.status, answer.media) == (200, "text/html")


async def test_other_addresses_are_the_index_for_browsers_only(built: Path, site: Site) -> None:
    assert (await site.ask("GET", "/nothing", role=None)).status == 404
    assert (await site.ask("GET", "/nothing", role=None, headers={"Accept": "text/html,*/*"})).status == 200
    assert (await site.ask("GET", "/assets/old-1.js", role=None, headers={"Accept": "text/html"})).status == 404
    assert (await site.ask("POST", "/devices", role=None)).status == 405
    assert (await site.ask("GET", "/api", role=None)).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/assets/../../secret.txt",
        "/assets/..%5c..%5csecret.txt",
        "/link.txt",
        "/.hidden",
        "/assets",
        "/assets/",
        "/assets/index-abc123.js.gz",
        "/assets/index-abc123.js%00.txt",
        "/ASSETS/index-abc123.js",
    ],
)
async def test_nothing_else_on_the_disk_is_served(built: Path, site: Site, path: str) -> None:
    status, body = await raw_get(site, path)
    assert status == 404, body
    assert b"secret" not in body.replace(path.encode(), b"")


async def test_a_new_build_is_served_without_a_restart(built: Path, site: Site) -> None:
    assert (await site.ask("GET", "/", role=None)).status == 200
    (built / "assets" / "index-def456.js").write_text("console.log(2)")
    index = built / "index.html"
    index.write_text("new")
    os.utime(index, ns=(1, 1))
    assert (await site.ask("GET", "/assets/index-def456.js", role=None)).status == 200
