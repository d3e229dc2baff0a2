"""An embeddable MQTT broker: one engine interface, its hooks, and the engines behind it. Knows nothing of Mooring."""

from broker.engine import (
    ConnectRequest,
    DenyAll,
    Done,
    Engine,
    Guard,
    Publish,
    SessionInfo,
    Sink,
    SubscriptionTap,
    Tap,
    VersionedGuard,
)
from broker.errors import BrokerError, EngineStopped, ListenError
from broker.native import AuthExchange, AuthMethod, AuthStep, Broker, BrokerOptions, TopicInfo
from broker.reason import ReasonCode

__all__ = [
    "AuthExchange",
    "AuthMethod",
    "AuthStep",
    "Broker",
    "BrokerError",
    "BrokerOptions",
    "ConnectRequest",
    "DenyAll",
    "Done",
    "Engine",
    "EngineStopped",
    "Guard",
    "ListenError",
    "Publish",
    "ReasonCode",
    "SessionInfo",
    "Sink",
    "SubscriptionTap",
    "Tap",
    "TopicInfo",
    "VersionedGuard",
]
