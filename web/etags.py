"""Versions of things as ETags, and the changes that are based on one."""

import re

from web.api.layer import Header
from web.api.problem import Problem
from web.call import Call

ETAG = Header(name="ETag", description='"v" and the version, such as "v7"')
IF_MATCH = Header(name="If-Match", description="The ETag that the change is based on; answered 412 when it is stale.")
_FORM = re.compile(r'"v(\d{1,15})"')


def put_etag(call: Call, version: int) -> None:
    """Answer with the ETag of this version."""
    call.headers["ETag"] = f'"v{version}"'


def if_version(call: Call, of: str) -> int | None:
    """The version that the change is based on; None for any. `of` says of what: "a twin". Raises Problem 412."""
    text = call.request.headers.get("If-Match", "*").strip()
    if text == "*":
        return None
    form = _FORM.fullmatch(text)
    if form is None:
        # RFC 9110: an entity tag that is not the present one fails the precondition, whatever it looks like.
        raise Problem(412, f'If-Match: the ETag of {of} looks like "v7", not {text[:40]}')
    return int(form[1])
