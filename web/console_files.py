"""Serves the built console: hashed assets for ever, index.html fresh each time, the console's own routes as index.html.

The directory is read once into a table of the files in it, and only what is in the table is served: a path from a
request never becomes a path on disk. Without a build there is one page that says how to make it.
"""

import os
from pathlib import Path

from aiohttp import web

from web.api.problem import Problem

CONSOLE_ROUTES = frozenset(
    {"", "setup", "login", "devices", "firmware", "campaigns", "broker", "audit", "users", "settings", "account"}
)
"""First parts of the console's own addresses: answered with index.html to everybody. A browser that navigates (it
accepts text/html) gets index.html at any other address too, and the console says there that the page is unknown."""

_PRECOMPRESSED = (".br", ".gz", ".zst")
_IMMUTABLE = "public, max-age=31536000, immutable"
_PAGE = Path(__file__).parent / "pages"


class ConsoleFiles:
    """The handler behind every address that is not the API's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Path] = {}
        self._indexed_at_ns = 0

    @property
    def is_built(self) -> bool:
        self._look()
        return "index.html" in self._files

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The file at this address, or index.html, or the page that says how to build. Raises Problem 404."""
        path = request.match_info["path"]
        if not self.is_built:
            if not self._is_page(request, path):
                raise Problem(404, "there is nothing at this address")
            return web.FileResponse(_PAGE / "no_console.html", headers={"Cache-Control": "no-cache"})
        file = self._files.get(path)
        if file is not None and path != "index.html":
            caching = _IMMUTABLE if path.startswith("assets/") else "no-cache"
            return web.FileResponse(file, headers={"Cache-Control": caching, "Vary": "Accept-Encoding"})
        if path != "index.html" and not self._is_page(request, path):
            raise Problem(404, "there is nothing at this address")
        return web.FileResponse(
            self._files["index.html"], headers={"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        )

    def _is_page(self, request: web.Request, path: str) -> bool:
        if path.startswith("assets/"):
            return False
        return path.split("/", 1)[0] in CONSOLE_ROUTES or "text/html" in request.headers.get("Accept", "")

    def _look(self) -> None:
        """Read the directory again when a new build has replaced index.html."""
        try:
            built_at_ns = (self._directory / "index.html").stat().st_mtime_ns
        except OSError:
            self._files, self._indexed_at_ns = {}, 0
            return
        if built_at_ns != self._indexed_at_ns:
            self._files = dict(_files(self._directory))
            self._indexed_at_ns = built_at_ns


def _files(directory: Path) -> list[tuple[str, Path]]:
    """Plain files below a directory by their address: no links, nothing hidden, no compressed twins."""
    found = []
    for folder, folders, names in os.walk(directory, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(folder, name)
            if name.startswith(".") or name.endswith(_PRECOMPRESSED) or file.is_symlink():
                continue
            found.append((file.relative_to(directory).as_posix(), file))
    return found
