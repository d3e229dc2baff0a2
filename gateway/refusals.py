"""Why a message was refused: one slug a reason, the MQTT 5 code that goes with it, and the Outcome made of both.

A refusal with `retry_after_s` is temporary: the same message may be taken later, so a link that cannot say no
(MQTT 3.1.1 has no negative PUBACK) must not acknowledge it. Every other refusal is final and is acknowledged,
or the device would send the same bad message for ever. No I/O, no clock.
"""

from enum import StrEnum

from broker.reason import ReasonCode
from gateway.link import Outcome


class Refusal(StrEnum):
    """The slugs people and programs see: in dead letters, in HTTP answers, in the counters."""

    INVALID_JSON = "invalid_json"
    INVALID_CBOR = "invalid_cbor"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_COMPRESSION = "invalid_compression"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    TOO_MANY_VALUES = "too_many_values"
    TEXT_TOO_LONG = "text_too_long"
    NOT_A_NUMBER = "not_a_number"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    UNSUPPORTED_VALUE = "unsupported_value"
    DUPLICATE_KEY = "duplicate_key"
    BAD_METRIC_NAME = "bad_metric_name"
    BAD_TIMESTAMP = "bad_timestamp"
    TOO_OLD = "too_old"
    """The store keeps no readings of that time any more."""
    TYPE_CHANGED = "type_changed"
    SCHEMA_VIOLATION = "schema_violation"
    MAPPING_FAILED = "mapping_failed"
    BINARY_MISMATCH = "binary_mismatch"
    UNKNOWN_METRIC = "unknown_metric"
    OUT_OF_RANGE = "out_of_range"
    WRONG_TYPE = "wrong_type"
    TOO_MANY_METRICS = "too_many_metrics"
    TOO_FAST = "too_fast"
    UNKNOWN_DEVICE = "unknown_device"
    UNKNOWN_CHANNEL = "unknown_channel"
    QUARANTINED = "quarantined"
    """The device may touch nothing but its twin, until an operator says otherwise."""
    STORE_REJECTED = "store_rejected"
    """Only in dead letters: the message was acknowledged, and the store would not have this reading of it."""
    STORE_FULL = "store_full"
    """No room on a disk, or no writing to it."""
    HELD_BACK = "held_back"
    """More has come than the store takes: the sender must wait."""
    BUSY = "busy"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL_ERROR = "internal_error"


_CODES = {
    Refusal.TOO_LARGE: ReasonCode.PACKET_TOO_LARGE,
    Refusal.TOO_MANY_METRICS: ReasonCode.QUOTA_EXCEEDED,
    Refusal.TOO_FAST: ReasonCode.QUOTA_EXCEEDED,
    Refusal.UNKNOWN_DEVICE: ReasonCode.NOT_AUTHORIZED,
    Refusal.QUARANTINED: ReasonCode.NOT_AUTHORIZED,
    Refusal.UNKNOWN_CHANNEL: ReasonCode.TOPIC_NAME_INVALID,
    Refusal.STORE_FULL: ReasonCode.QUOTA_EXCEEDED,
    Refusal.HELD_BACK: ReasonCode.QUOTA_EXCEEDED,
    Refusal.BUSY: ReasonCode.SERVER_BUSY,
    Refusal.SHUTTING_DOWN: ReasonCode.SERVER_SHUTTING_DOWN,
    Refusal.INTERNAL_ERROR: ReasonCode.UNSPECIFIED_ERROR,
}


def code_of(reason: Refusal) -> ReasonCode:
    """The MQTT 5 code of a refusal; what is wrong with the payload itself is PAYLOAD_FORMAT_INVALID."""
    return _CODES.get(reason, ReasonCode.PAYLOAD_FORMAT_INVALID)


def refuse(reason: Refusal, detail: str, *, retry_after_s: float | None = None) -> Outcome:
    """The Outcome of a refused message."""
    return Outcome(code=code_of(reason), reason=reason, detail=detail, retry_after_s=retry_after_s)


def store_full(retry_after_s: float, detail: str = "the journal has no room") -> Outcome:
    """Telemetry cannot be made safe now; what was acknowledged before stays."""
    return refuse(Refusal.STORE_FULL, detail, retry_after_s=retry_after_s)


def held_back(retry_after_s: float) -> Outcome:
    """Telemetry comes faster than the store takes it; what was acknowledged before stays."""
    detail = "the store has not taken what came before: send the same again later"
    return refuse(Refusal.HELD_BACK, detail, retry_after_s=retry_after_s)


def busy(retry_after_s: float = 1.0, detail: str = "too many messages are waiting") -> Outcome:
    """A control message cannot be looked at now."""
    return refuse(Refusal.BUSY, detail, retry_after_s=retry_after_s)


def shutting_down() -> Outcome:
    return refuse(Refusal.SHUTTING_DOWN, "the gateway is stopping", retry_after_s=5.0)


def unknown_device(device_id: str) -> Outcome:
    return refuse(Refusal.UNKNOWN_DEVICE, f"{device_id}: no such device, or disabled")


def quarantined(device_id: str) -> Outcome:
    return refuse(Refusal.QUARANTINED, f"{device_id} is in quarantine: it may touch nothing but its twin")


def unknown_channel(channel: str) -> Outcome:
    return refuse(Refusal.UNKNOWN_CHANNEL, f"devices may not publish on {channel[:100]!r}")


def internal_error() -> Outcome:
    """Our fault, and perhaps only now: the device may try again."""
    return refuse(Refusal.INTERNAL_ERROR, "the server failed on this message", retry_after_s=5.0)


def is_temporary(outcome: Outcome) -> bool:
    """Whether the same message may be taken later: then it must not be acknowledged."""
    return outcome.retry_after_s is not None
