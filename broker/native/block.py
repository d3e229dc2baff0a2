"""Why a client is not read from."""

from enum import IntFlag


class Block(IntFlag):
    """Why a client is not read from."""

    GUARD = 1
    """The Guard is thinking."""
    UNDONE = 2
    """Too many of its messages are not acknowledged."""
    RATE = 4
    """It sends too fast."""
    UNREAD = 8
    """It does not read."""
    TURN = 16
    """It has had its share of this turn of the loop."""
