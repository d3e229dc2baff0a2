"""What every link asks of a message before it hands it on, and how an outcome reads to a broker. No I/O, no clock.

The topic rules are in gateway/channels.py (docs/topics.md); the reason codes that a PUBACK may carry are in
MQTT 5, section 3.4.2.1.
"""

from collections.abc import Sequence
from functools import lru_cache

from broker.reason import ReasonCode
from gateway.channels import CLAIMANT, PROVISION, is_uplink, split_topic
from gateway.link import TAKEN, Outcome
from gateway.refusals import is_temporary, unknown_channel

FOREIGN_TOPIC = Outcome(
    code=ReasonCode.NOT_AUTHORIZED, reason="foreign_topic", detail="the topic belongs to another device"
)

# Codes of a PUBACK that say "not now". An engine that cannot say so (MQTT 3.1.1) sends no PUBACK for them, and the
# device sends again; so a final refusal must never carry one, or the device would send the same message for ever.
_NOT_NOW = frozenset(
    {ReasonCode.UNSPECIFIED_ERROR, ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, ReasonCode.QUOTA_EXCEEDED}
)
_FINAL = frozenset({ReasonCode.NOT_AUTHORIZED, ReasonCode.TOPIC_NAME_INVALID, ReasonCode.PAYLOAD_FORMAT_INVALID})


_REMEMBERED_CHARS = 200  # a device id and the longest uplink channel are shorter: what a stranger sends is not kept


def admit(topic: str, username: str) -> tuple[str, str] | Outcome:
    """(device_id, channel) of a topic that the device named `username` may publish on, or the refusal."""
    return (_admit if len(topic) > _REMEMBERED_CHARS else _admit_again)(topic, username)


def _admit(topic: str, username: str) -> tuple[str, str] | Outcome:
    parts = split_topic(topic)
    if username == CLAIMANT:  # the guard has seen to it that the id is the one of its client id
        return parts if parts is not None and parts[1] == PROVISION else FOREIGN_TOPIC
    if parts is None or not is_uplink(parts[1]):
        return unknown_channel(topic if parts is None else parts[1])
    return parts if parts[0] == username else FOREIGN_TOPIC


_admit_again = lru_cache(maxsize=20_000)(_admit)


def puback_codes(outcomes: Sequence[Outcome]) -> list[ReasonCode]:
    """`puback_code` of each."""
    if outcomes.count(TAKEN) == len(outcomes):
        return [ReasonCode.SUCCESS] * len(outcomes)
    return [puback_code(outcome) for outcome in outcomes]


def puback_code(outcome: Outcome) -> ReasonCode:
    """The outcome's code, or the nearest that a PUBACK may carry and that is as temporary or final."""
    if not outcome.code.is_error:
        return ReasonCode.SUCCESS
    if is_temporary(outcome):
        return outcome.code if outcome.code in _NOT_NOW else ReasonCode.QUOTA_EXCEEDED
    return outcome.code if outcome.code in _FINAL else ReasonCode.PAYLOAD_FORMAT_INVALID
