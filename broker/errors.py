"""What can go wrong in a broker engine, by whose fault it is.

BrokerError
├── ListenError        the world's: an address cannot be bound
├── PersistenceError   the world's: what is to be kept on disk cannot be read or written
└── EngineStopped      ours: the engine was used before start or after stop
"""

from pathlib import Path


class BrokerError(Exception):
    """A broker engine could not do what was asked."""


class ListenError(BrokerError):
    """An address cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {reason}")
        self.host = host
        self.port = port
        self.reason = reason


class PersistenceError(BrokerError):
    """A file or directory of what the broker keeps cannot be used; the reason says what to do about it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class EngineStopped(BrokerError):
    """The engine is not running."""
