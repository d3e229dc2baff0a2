"""One HTTP connection: aiohttp's own, but for what it answers, and logs, when a request cannot even be read.

aiohttp answers those itself, in its own words and with its version; here they get the API's error shape. They are
the peer's fault and come by the thousand from scanners: a line at DEBUG each, with nothing of the peer's in it.
"""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from web.api.problem import Problem
from web.security_headers import DATA_POLICY

logger = logging.getLogger(__name__)


class Connection(RequestHandler):
    """Made by the listener, one a connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that never reached the application."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer is on its way already")
        if isinstance(exc, HttpProcessingError):
            logger.debug("%s: not a request: %s", request.remote, type(exc).__name__)
            problem = Problem(status if 400 <= status < 500 else 400, "the request could not be read")
        else:
            logger.error("%s: a request failed outside the application", request.remote, exc_info=exc)
            problem = Problem(500, "something went wrong")
        response = problem.response()
        response.headers["Server"] = "mooring"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = DATA_POLICY
        response.force_close()
        return response
