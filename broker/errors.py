"""What can go wrong in a broker engine, by whose fault it is.

BrokerError
├── ListenError      the world's: an address cannot be bound
└── EngineStopped    ours: the engine was used before start or after stop
"""


class BrokerError(Exception):
    """A broker engine could not do what was asked."""


class ListenError(BrokerError):
    """An address cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {reason}")
        self.host = host
        self.port = port
        self.reason = reason


class EngineStopped(BrokerError):
    """The engine is not running."""
