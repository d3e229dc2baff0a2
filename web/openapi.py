"""The OpenAPI document of the admin API. `python -m web.openapi` prints it; it needs neither server nor database."""

import json
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

import orjson

from web.api.document import document
from web.routes import SUBJECTS

_DESCRIPTION = """\
Devices, their telemetry, twins, commands and firmware.

Sign in with `auth/login` and send the access token as `Authorization: Bearer …`. Errors are RFC 9457 problems \
(`application/problem+json`). Lists are pages: pass `next_cursor` on as `cursor`. Properties that an operation does \
not know are refused. Live views are one WebSocket at `/api/v1/live`, described in the manual.\
"""


def openapi(version: str) -> dict[str, Any]:
    """The document, as served at /api/openapi.json."""
    return document(SUBJECTS, title="Mooring", version=version, description=_DESCRIPTION)


@cache
def openapi_json(version: str) -> bytes:
    """The document as it goes over the wire, made once."""
    return orjson.dumps(openapi(version))


def main() -> None:
    """Print the document."""
    try:
        version = installed_version("mooring")
    except PackageNotFoundError:
        version = "0"
    json.dump(openapi(version), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
