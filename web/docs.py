"""The reader of the OpenAPI document at /api/docs: a page, a script and a style sheet of our own."""

from pathlib import Path

from aiohttp import web

_PAGES = Path(__file__).parent / "pages"
_FRESH = {"Cache-Control": "no-cache"}


def docs_page() -> web.StreamResponse:
    return web.FileResponse(_PAGES / "docs.html", headers=_FRESH)


async def docs_file(request: web.Request) -> web.StreamResponse:
    """docs.js or docs.css: the router lets nothing else come here."""
    return web.FileResponse(_PAGES / request.path.rsplit("/", 1)[1], headers=_FRESH)
