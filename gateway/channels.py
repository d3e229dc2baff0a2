"""The topics of a device, below devices/{device_id}/ (docs/topics.md). No I/O, no clock."""

import re

ROOT = "devices"
DEVICE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

TELEMETRY = "telemetry"
TELEMETRY_BINARY = "telemetry/binary"
TELEMETRY_CBOR = "telemetry/cbor"
TELEMETRY_SENML = "telemetry/senml"
TELEMETRY_SENML_CBOR = "telemetry/senml-cbor"
EVENTS = "events"
TWIN_REPORTED = "twin/reported"
TWIN_GET = "twin/get"
TWIN = "twin"
TWIN_DESIRED = "twin/desired"
COMMANDS = "commands"
OTA_OFFER = "ota/offer"
OTA_STATUS = "ota/status"
OTA_CHUNK = "ota/chunk"
OTA_CHUNK_GET = "ota/chunk/get"
STATUS = "status"
PROVISION = "provision"
PROVISION_ANSWER = "provision/answer"

CLAIMANT = "provision"
"""The user name of who has no credential yet and asks for one; its client id is "provision:" and the id it wants."""

TELEMETRY_CHANNELS = frozenset((TELEMETRY, TELEMETRY_BINARY, TELEMETRY_CBOR, TELEMETRY_SENML, TELEMETRY_SENML_CBOR))
TWIN_CHANNELS = frozenset((TWIN, TWIN_DESIRED, TWIN_REPORTED, TWIN_GET))
"""All that is left to a device in quarantine."""
_UP = re.compile(
    r"telemetry(/binary|/cbor|/senml(-cbor)?)?|events|twin/reported|twin/get|commands/[A-Za-z0-9_-]{1,64}/status"
    r"|ota/status|ota/chunk/get"
)


def is_device_id(text: str) -> bool:
    """Whether `text` may name a device: 1 to 64 of A-Z a-z 0-9 . _ : -, but not "." or "..", which no URL can name."""
    return DEVICE_ID.fullmatch(text) is not None and text not in (".", "..")


def topic_of(device_id: str, channel: str) -> str:
    """devices/{device_id}/{channel}"""
    return f"{ROOT}/{device_id}/{channel}"


def split_topic(topic: str) -> tuple[str, str] | None:
    """(device_id, channel) of a topic below devices/, or None for any other topic."""
    root, _, rest = topic.partition("/")
    device_id, slash, channel = rest.partition("/")
    if root != ROOT or not slash or not channel or not is_device_id(device_id):
        return None
    return device_id, channel


def is_uplink(channel: str) -> bool:
    """Whether a device may publish on this channel."""
    return _UP.fullmatch(channel) is not None


def claimed_id(client_id: str) -> str | None:
    """The device id that a claimant's client id asks for, or None."""
    prefix, _, device_id = client_id.partition(":")
    return device_id if prefix == CLAIMANT and is_device_id(device_id) else None


def is_telemetry(channel: str) -> bool:
    """Whether the channel carries readings, for the journal; every other uplink is for the fleet."""
    return channel in TELEMETRY_CHANNELS


def command_of(channel: str) -> str | None:
    """The command id in "commands/{id}/status", or None."""
    parts = channel.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == COMMANDS and parts[2] == "status" else None
