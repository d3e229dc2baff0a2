"""Devices that ask over MQTT for their first credential: who has knocked with which key, and what they are answered.

The claim key is the password of the MQTT connection, so it is known when the connection is made and not when the
question comes; it is kept here in between.

Client ids of claimants are no secret, and who connects with one ends the connection that had it before. So for a
while an id belongs to who asked for it last: a stranger who comes in between would hear the answer. Only a claim key
goes before none; what had been asked on the connection that it ends must not be answered by that key.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fleet.clock import Clock
from fleet.database import trouble
from fleet.errors import Conflict, Invalid, TooManyAttempts
from fleet.ports import Sender
from fleet.provisioning import Asked, Provisioning, Refused
from gateway.channels import PROVISION_ANSWER
from gateway.link import TAKEN, Outcome, Uplink

logger = logging.getLogger(__name__)

_LIMIT = 10_000  # who has waited longest to ask is forgotten, and connects again
_PAYLOAD_LIMIT_BYTES = 8 * 1024
_TROUBLE_RETRY_S = 5.0
_HELD_S = 60.0  # since the last question: twice as long as a device waits until it asks again
_SETTLES_S = 2.0  # by then the connection before is closed, and what it asked is answered


@dataclass(frozen=True, slots=True)
class _Knock:
    claim_key: str
    address: str
    at: float
    settled_at: float

    def is_of(self, claim_key: str, address: str) -> bool:
        """Whether it is the same that comes again: with the same key, or with none from the same address."""
        return claim_key == self.claim_key and (bool(claim_key) or address == self.address)


class Claimants:
    """Between the guard, which sees passwords, and provisioning."""

    def __init__(self, *, provisioning: Provisioning, sender: Sender, clock: Clock) -> None:
        self._provisioning = provisioning
        self._clock = clock
        self._sender = sender
        self._knocks: OrderedDict[str, _Knock] = OrderedDict()

    async def knock(self, device_id: str, claim_key: str, address: str) -> bool:
        """Whether to let in somebody who will ask for this id; remembers the key it came with.

        Raises Conflict when another asks for this id at present.
        """
        if not await self._provisioning.may_connect(claim_key, address):
            return False
        now = settled_at = self._clock.monotonic()
        before = self._knocks.get(device_id)
        if before is not None and not before.is_of(claim_key, address):
            goes_before = bool(claim_key) and not before.claim_key
            if now - before.at < _HELD_S and not goes_before:
                raise Conflict("another asks for this id")
            settled_at = now + _SETTLES_S
        self._knocks[device_id] = _Knock(claim_key, address, now, settled_at)
        self._knocks.move_to_end(device_id)
        while len(self._knocks) > _LIMIT:
            self._knocks.popitem(last=False)
        return True

    async def handle(self, uplink: Uplink) -> Outcome:
        """Answer a question on its connection; the message itself is always taken."""
        answer = await self._answer(uplink)
        await self._sender.send(uplink.device_id, PROVISION_ANSWER, orjson.dumps(answer))
        return TAKEN

    async def _answer(self, uplink: Uplink) -> dict[str, Any]:
        knock = self._knocks.get(uplink.device_id)
        if knock is None:
            return _no("connect_again", "connect again and ask then")
        now = self._clock.monotonic()
        if now < knock.settled_at:
            return _no("try_again", "another asked for this id just now", retry_after_s=_SETTLES_S)
        self._knocks[uplink.device_id] = replace(knock, at=now)
        try:
            question = question_of(uplink.payload)
            asked = Asked(
                device_id=uplink.device_id,
                claim_key=knock.claim_key,
                nonce=question.get("nonce", ""),
                info=question.get("info", {}),
                address=knock.address,
                link=uplink.link,
            )
            return (await self._provisioning.ask(asked)).json()
        except Refused as error:
            return _no(error.reason, error.detail)
        except Invalid as error:
            return _no("invalid", str(error))
        except TooManyAttempts as error:
            return _no("too_many_attempts", str(error), retry_after_s=error.retry_after_s)
        except Conflict as error:
            return _no("try_again", error.detail, retry_after_s=1.0)
        except Exception as error:
            if trouble(error) is None:
                logger.exception("%s: its question for a credential failed", uplink.device_id)
            return _no("try_again", "the server cannot answer now", retry_after_s=_TROUBLE_RETRY_S)


def question_of(payload: bytes) -> dict[str, Any]:
    """{"nonce"?: text, "claim_key"?: text, "id"?: text, "info"?: object}. Raises Invalid."""
    if len(payload) > _PAYLOAD_LIMIT_BYTES:
        raise Invalid("payload", f"is larger than {_PAYLOAD_LIMIT_BYTES} bytes")
    try:
        question = orjson.loads(payload or b"{}")
    except orjson.JSONDecodeError as error:
        raise Invalid("payload", f"is not JSON: {error}") from error
    if not isinstance(question, dict):
        raise Invalid("payload", "must be a JSON object")
    for name, kind, words in (
        ("id", str, "text"),
        ("claim_key", str, "text"),
        ("nonce", str, "text"),
        ("info", dict, "a JSON object"),
    ):
        if not isinstance(question.get(name, kind()), kind):
            raise Invalid(name, f"must be {words}")
    return question


def _no(reason: str, detail: str, *, retry_after_s: float | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"status": "refused", "reason": reason, "detail": detail}
    if retry_after_s is not None:
        answer["retry_after"] = max(1, round(retry_after_s))
    return answer
