"""Reading an update offer as a device does: trusting nothing in it. No I/O, no clock."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class OfferUnreadable(Exception):
    """An offer that makes no sense; `job` is set when at least that could be read, so that it can be answered."""

    def __init__(self, detail: str, job: str | None = None) -> None:
        super().__init__(detail)
        self.job = job


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An image a device is asked to install. `url` may be empty: then the device's own server has it."""

    job: str
    version: str
    artifact_id: str
    size: int
    sha256: str
    url: str = ""
    deadline_ms: int | None = None


def read_offer(payload: Mapping[str, object]) -> Offer:
    """The offer in a payload of ota/offer. Raises OfferUnreadable."""
    job = payload.get("job")
    if not isinstance(job, str) or not _ID.fullmatch(job):
        raise OfferUnreadable("offer without a job")
    version, artifact = payload.get("version"), payload.get("artifact")
    if not isinstance(version, str) or not 1 <= len(version) <= 64:
        raise OfferUnreadable("offer without a version", job)
    if not isinstance(artifact, Mapping):
        raise OfferUnreadable("offer without an artifact", job)
    artifact_id, size, digest, url = (artifact.get(name) for name in ("id", "size", "sha256", "url"))
    if not isinstance(artifact_id, str) or not _ID.fullmatch(artifact_id):
        raise OfferUnreadable("offer without an artifact id", job)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise OfferUnreadable("offer with a size that is no number above 0", job)
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise OfferUnreadable("offer with a sha256 that is none", job)
    deadline = payload.get("deadline")
    return Offer(
        job=job,
        version=version,
        artifact_id=artifact_id,
        size=size,
        sha256=digest.lower(),
        url=url if isinstance(url, str) else "",
        deadline_ms=deadline if isinstance(deadline, int) and not isinstance(deadline, bool) else None,
    )
