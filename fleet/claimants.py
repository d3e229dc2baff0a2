"""Devices that ask over MQTT for their first credential: who has knocked with which key, and what they are answered.

The claim key is the password of the MQTT connection, so it is known when the connection is made and not when the
question comes; it is kept here in between.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson

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


@dataclass(frozen=True, slots=True)
class _Knock:
    claim_key: str
    address: str


class Claimants:
    """Between the guard, which sees passwords, and provisioning."""

    def __init__(self, *, provisioning: Provisioning, sender: Sender) -> None:
        self._provisioning = provisioning
        self._sender = sender
        self._knocks: OrderedDict[str, _Knock] = OrderedDict()

    async def knock(self, device_id: str, claim_key: str, address: str) -> bool:
        """Whether to let in somebody who will ask for this id; remembers the key it came with."""
        if not await self._provisioning.may_connect(claim_key, address):
            return False
        self._knocks[device_id] = _Knock(claim_key, address)
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
