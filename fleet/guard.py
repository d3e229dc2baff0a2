"""Who may connect to the embedded broker, and what they may publish and subscribe to there: deny by default.

A device logs in with its id as user name and a token, or a JWT that it signed, as password, or without a password by a
client certificate. Its client id is the device id, or the device id followed by ":" and anything without topic
characters. It publishes on the uplink channels below its own topic root and subscribes below that root, and nowhere
else; a will is a publish. In quarantine nothing but its twin is left to it. Rules are looked up at each use.

Who has no credential yet logs in as "provision", with a claim key as password and the client id "provision:" and the
id it wants; it asks on that device's `provision` topic, hears the answer on `provision/answer`, and does nothing else.
"""

import logging
import re

from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from fleet.claimants import Claimants
from fleet.credentials import Credentials
from fleet.database import log_failure
from fleet.directory import Directory
from fleet.errors import Conflict, TooManyAttempts
from gateway.channels import (
    CLAIMANT,
    PROVISION,
    PROVISION_ANSWER,
    ROOT,
    TWIN,
    TWIN_CHANNELS,
    claimed_id,
    is_device_id,
    is_uplink,
    split_topic,
    topic_of,
)

logger = logging.getLogger(__name__)

CLIENT_ID_LIMIT = 256
_CLIENT_ID = re.compile(r"[^\x00-\x1f\x7f+#/$]{1,256}")
_TWIN_FILTERS = frozenset((*TWIN_CHANNELS, f"{TWIN}/#", f"{TWIN}/+"))
_FILTER_LEVELS_LIMIT = 16  # the deepest channel has three levels below the root's two


class DeviceGuard:
    """Implements broker.VersionedGuard for devices."""

    def __init__(self, *, credentials: Credentials, directory: Directory, claimants: Claimants) -> None:
        self._credentials = credentials
        self._directory = directory
        self._claimants = claimants

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        """The same answer for an unknown device, a wrong token and a disabled device."""
        device_id = request.username or ""
        if device_id == CLAIMANT:
            return await self._claimant(request)
        if not is_device_id(device_id):
            return ReasonCode.BAD_USER_NAME_OR_PASSWORD
        try:
            known = await self._knows(device_id, request)
        except TooManyAttempts:
            return ReasonCode.SERVER_BUSY
        except Exception as error:
            log_failure(logger, error, "%s: cannot be checked", device_id)
            return ReasonCode.SERVER_UNAVAILABLE
        if not known:
            return ReasonCode.BAD_USER_NAME_OR_PASSWORD
        if not _CLIENT_ID.fullmatch(request.client_id) or self._directory.owner_of(request.client_id) != device_id:
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        if request.will_topic is not None:
            return self.publish(request.client_id, device_id, request.will_topic)
        return ReasonCode.SUCCESS

    async def _knows(self, device_id: str, request: ConnectRequest) -> bool:
        """Whether the password is right; the certificate, where there is no password."""
        client_id = request.client_id
        if request.password:
            try:
                secret = request.password.decode("ascii")
            except UnicodeDecodeError:
                return False
            return await self._credentials.authenticate(device_id, secret, client_id=client_id, address=request.address)
        if request.certificate is None:
            return False
        return await self._credentials.authenticate_certificate(device_id, request.certificate, client_id=client_id)

    async def _claimant(self, request: ConnectRequest) -> ReasonCode:
        """A claim key is looked at once more when it is used: here it only opens the door."""
        if request.will_topic is not None:
            return ReasonCode.NOT_AUTHORIZED
        wanted = claimed_id(request.client_id)
        if wanted is None or self._directory.owner_of(request.client_id) is not None:
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        key = (request.password or b"").decode("ascii", "replace")
        try:
            listens = await self._claimants.knock(wanted, key, request.address)
        except Conflict:
            return ReasonCode.SERVER_BUSY
        except Exception as error:
            log_failure(logger, error, "%s: its claim key cannot be checked", request.client_id)
            return ReasonCode.SERVER_UNAVAILABLE
        return ReasonCode.SUCCESS if listens else ReasonCode.BAD_USER_NAME_OR_PASSWORD

    @property
    def rules_version(self) -> int:
        """What `publish` answers holds until a device comes, goes, is disabled or put into quarantine."""
        return self._directory.version

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        """Only uplink channels below the device's own root, and only while it is not disabled."""
        own = split_topic(topic)
        if username == CLAIMANT:
            asks = own is not None and own[1] == PROVISION and own[0] == claimed_id(client_id)
            return ReasonCode.SUCCESS if asks else ReasonCode.NOT_AUTHORIZED
        if own is None or own[0] != username or not is_uplink(own[1]) or not self._directory.is_active(username):
            return ReasonCode.NOT_AUTHORIZED
        if self._directory.is_quarantined(username) and own[1] not in TWIN_CHANNELS:
            return ReasonCode.NOT_AUTHORIZED
        return ReasonCode.SUCCESS

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        """Only filters that cannot match anything but the device's own topics."""
        if username == CLAIMANT:
            wanted = claimed_id(client_id)
            hears = wanted is not None and topic_filter == topic_of(wanted, PROVISION_ANSWER)
            return ReasonCode.SUCCESS if hears else ReasonCode.NOT_AUTHORIZED
        root = f"{ROOT}/{username}/"
        if not self._directory.is_active(username) or not is_device_id(username):
            return ReasonCode.NOT_AUTHORIZED
        if not topic_filter.startswith(root) or topic_filter.count("/") >= _FILTER_LEVELS_LIMIT:
            return ReasonCode.NOT_AUTHORIZED
        if self._directory.is_quarantined(username) and topic_filter.removeprefix(root) not in _TWIN_FILTERS:
            return ReasonCode.NOT_AUTHORIZED
        return ReasonCode.SUCCESS if _is_filter(topic_filter) else ReasonCode.TOPIC_FILTER_INVALID


def _is_filter(topic_filter: str) -> bool:
    """Well-formed: wildcards fill a level, # is the last one [MQTT-4.7.1]."""
    levels = topic_filter.split("/")
    if "\0" in topic_filter:
        return False
    return all(
        ("+" not in level or level == "+") and ("#" not in level or (level == "#" and place == len(levels) - 1))
        for place, level in enumerate(levels)
    )
