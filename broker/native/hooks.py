"""What the hooks are asked and told. Whatever one of them raises is logged here, and counts as a no."""

import logging
from collections.abc import Sequence
from typing import Any

from broker.engine import ConnectRequest, DenyAll, Guard, SubscriptionTap, Tap, VersionedGuard
from broker.native.counters import Counters
from broker.native.options import BrokerOptions
from broker.native.session import Session
from broker.reason import ReasonCode
from broker.topics import is_topic

logger = logging.getLogger(__name__)


class Hooks:
    """The Guard and the Taps."""

    def __init__(self, options: BrokerOptions, counters: Counters, *, guard: Guard | None, taps: Sequence[Tap]) -> None:
        self._options = options
        self._counters = counters
        self._guard: Guard = guard if guard is not None else DenyAll()
        self._versioned = guard if isinstance(guard, VersionedGuard) else None
        self._taps = tuple(taps)

    @property
    def is_versioned(self) -> bool:
        """Whether the Guard's answers about PUBLISH may be remembered."""
        return self._versioned is not None

    @property
    def rules_version(self) -> int:
        """How long the Guard's answers about PUBLISH hold; below 0: not at all."""
        return self._versioned.rules_version if self._versioned is not None else -1

    async def may_connect(self, request: ConnectRequest) -> ReasonCode:
        """Whether the Guard lets the client in."""
        if not _is_plain(request.client_id) or not _is_plain(request.username or ""):
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID  # [MQTT-3.1.3-8]
        try:
            return await self._guard.connect(request)
        except Exception:
            logger.exception("the guard failed on a CONNECT")
            return ReasonCode.SERVER_UNAVAILABLE

    def may_publish(self, session: Session, topic: str) -> ReasonCode:
        """Whether the Guard allows it now; the taps are told when not."""
        code = self.ask_publish(session.client_id, session.username, topic)
        if code.is_error:
            self._counters.refused_publishes += 1
            self.tell("refused", session.client_id, session.username, "publish", topic, code)
        return code

    def may_will(self, client_id: str, username: str, topic: str) -> ReasonCode:
        """Whether a client may have a will on this topic."""
        options = self._options
        if (
            not is_topic(topic)
            or len(topic.encode()) > options.max_topic_bytes
            or topic.count("/") >= options.max_topic_levels
        ):
            return ReasonCode.TOPIC_NAME_INVALID
        return self.ask_publish(client_id, username, topic)

    async def may_subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        """Whether the Guard allows it now."""
        try:
            return await self._guard.subscribe(client_id, username, topic_filter)
        except Exception:
            logger.exception("the guard failed on a SUBSCRIBE")
            return ReasonCode.NOT_AUTHORIZED

    def ask_publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        """Whether the Guard allows it now."""
        if topic.startswith("$"):
            return ReasonCode.NOT_AUTHORIZED
        try:
            return self._guard.publish(client_id, username, topic)
        except Exception:
            logger.exception("the guard failed on a PUBLISH")
            return ReasonCode.NOT_AUTHORIZED

    @property
    def is_tapped(self) -> bool:
        """Whether anybody watches."""
        return bool(self._taps)

    def tell(self, what: str, *args: Any) -> None:
        """Tell the taps."""
        for tap in self._taps:
            if what == "subscribed" and not isinstance(tap, SubscriptionTap):
                continue
            try:
                getattr(tap, what)(*args)
            except Exception:
                logger.exception("a tap failed on %s", what)


def _is_plain(name: str) -> bool:
    """No control characters: such names break logs, and topics made of them [MQTT-1.5.4-2]."""
    return name.isprintable() or not any(ord(each) < 32 or ord(each) == 127 for each in name)  # [MQTT-3.1.3-5]
