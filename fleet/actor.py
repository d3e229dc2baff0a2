"""Who did it: the first argument of everything that changes something, and a column of the audit. No I/O, no clock."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A person (`id` = user name), a device (`id` = device id) or the server itself; `address` as it was seen."""

    kind: Literal["user", "device", "system"]
    id: str
    address: str = ""

    def json(self) -> dict[str, str]:
        """As the API and the audit show it."""
        return {"kind": self.kind, "id": self.id, "address": self.address}


SYSTEM = Actor(kind="system", id="mooring")
