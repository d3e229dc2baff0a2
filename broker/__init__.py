"""An embeddable MQTT broker: one engine interface, its hooks, and the engines behind it. Knows nothing of Mooring."""

from broker.engine import ConnectRequest, DenyAll, Done, Engine, Guard, Publish, SessionInfo, Sink, SubscriptionTap, Tap
from broker.errors import BrokerError, EngineStopped, ListenError
from broker.reason import ReasonCode

__all__ = [
    "BrokerError",
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
]
