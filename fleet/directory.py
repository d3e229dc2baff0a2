"""Every device's id in memory, so that "may this one speak?" costs no query: it is asked for each message.

100,000 ids take some 10 MB. Where the database is shared with other nodes, it is read again now and then.
"""

from fleet.models import DeviceRow


class Directory:
    """Known device ids, and which of them are disabled or in quarantine."""

    def __init__(self) -> None:
        self._disabled: dict[str, bool] = {}
        self._quarantined: set[str] = set()
        self._changes = 0

    async def load(self) -> None:
        """Read all of it from the database; not when it changes here meanwhile: then the next reading is the one."""
        changes = self._changes
        disabled = dict(await DeviceRow.all().values_list("id", "disabled"))
        quarantined = {id_ for (id_,) in await DeviceRow.filter(quarantined=True).values_list("id")}
        if changes == self._changes and (disabled, quarantined) != (self._disabled, self._quarantined):
            self._changes += 1
            self._disabled, self._quarantined = disabled, quarantined

    @property
    def version(self) -> int:
        """Another number after each change of what is in here."""
        return self._changes

    def put(self, device_id: str, *, disabled: bool, quarantined: bool = False) -> None:
        self._changes += 1
        self._disabled[device_id] = disabled
        if quarantined:
            self._quarantined.add(device_id)
        else:
            self._quarantined.discard(device_id)

    def remove(self, device_id: str) -> None:
        self._changes += 1
        self._disabled.pop(device_id, None)
        self._quarantined.discard(device_id)

    def is_known(self, device_id: str) -> bool:
        return device_id in self._disabled

    def is_active(self, device_id: str) -> bool:
        """Known and not disabled."""
        return self._disabled.get(device_id, True) is False

    def is_quarantined(self, device_id: str) -> bool:
        """May touch nothing but its twin."""
        return device_id in self._quarantined

    def owner_of(self, client_id: str) -> str | None:
        """The device that a client id belongs to: itself, or the longest device id that it continues with ":".

        Device ids may hold ":" too, so "a:b" is device a's second connection only while there is no device "a:b".
        """
        candidate = client_id
        while candidate:
            if candidate in self._disabled:
                return candidate
            candidate = candidate.rpartition(":")[0]
        return None

    def __len__(self) -> int:
        return len(self._disabled)
