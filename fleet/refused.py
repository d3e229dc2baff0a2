"""The gateway's dead letters as entries of a timeline. No copies: they are read where they are."""

from datetime import UTC, datetime

from fleet.ports import Letter, LetterSource
from fleet.views import Level, TimelineEntry, TimelineKind


class RefusedMessages:
    """Implements timeline.Refused over the gateway's dead letters."""

    def __init__(self, letters: LetterSource) -> None:
        self._letters = letters

    async def list(self, device_id: str, limit: int, before: str) -> list[tuple[str, TimelineEntry]]:
        """At most `limit` that come after the cursor `before` ("": from the newest), each with its own cursor."""
        if before and not (before.isascii() and before.isdigit() and len(before) < 19):
            return []
        letters = await self._letters.list(device_id, limit, int(before) if before else None)
        return [(str(letter.id), _entry(letter)) for letter in letters]


def _entry(letter: Letter) -> TimelineEntry:
    entry = letter.entry()
    return TimelineEntry(
        id=str(entry["id"]),
        device_id=letter.device_id,
        at=datetime.fromtimestamp(letter.at_ms / 1000, UTC),
        kind=TimelineKind.MESSAGE_REFUSED,
        level=Level.WARNING,
        summary=str(entry["summary"]),
        data=dict(entry["data"]),
    )
