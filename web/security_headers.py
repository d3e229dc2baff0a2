"""Headers on every answer, errors too: what a browser may do with it. No I/O.

Scripts come from files of ours alone. Styles may be inline, because the console's components set them as attributes
(Mantine positions its menus so); frames, plug-ins, foreign forms and foreign addresses are refused.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox"


def security_headers(*, https: bool) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A signal for on_response_prepare. `https`: tell browsers to come back by https only (HSTS)."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        is_page = response.content_type in ("text/html", "text/javascript", "text/css", "image/svg+xml")
        # A 304 has no type, and what it carries replaces the stored page's headers (RFC 9111, 3.2): the sandbox meant
        # for data would make a page that was looked at before go blank.
        if response.status != 304:
            headers.setdefault("Content-Security-Policy", PAGE_POLICY if is_page else DATA_POLICY)
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        # What the API answers is somebody's: no cache keeps it.
        headers.setdefault("Cache-Control", "no-store")
        if https:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if "Server" in headers:
            headers["Server"] = "mooring"

    return add
