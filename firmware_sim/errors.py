"""What can go wrong in the simulator, by whose fault it is.

SimError
├── BadOptions          ours: the options do not make sense
├── ServerUnreachable   the world: nobody answers there
├── LoginRefused        the operator's user name, password or token is wrong
├── AdminRefused        the admin API answered with an error
└── DeviceRefused       one device's credential was not accepted
LinkLost                a connection ended; the device tries again
"""


class SimError(Exception):
    """The simulator cannot go on; the message is written for the person who started it."""


class BadOptions(SimError):
    """The options do not make sense together."""


class ServerUnreachable(SimError):
    """Nobody answers at an address."""

    def __init__(self, what: str, address: str, reason: str) -> None:
        super().__init__(f"{what} does not answer at {address}: {reason}")
        self.address = address


class LoginRefused(SimError):
    """The admin API does not accept the user name and password, or the token."""


class AdminRefused(SimError):
    """The admin API refused a request; `status` is the HTTP status, `detail` the problem's own words."""

    def __init__(self, action: str, status: int, detail: str) -> None:
        super().__init__(f"the admin API refused to {action}: {status} {detail}")
        self.status = status
        self.detail = detail


class DeviceRefused(SimError):
    """The server did not let a device in."""

    def __init__(self, device_id: str, reason: str) -> None:
        super().__init__(f"the server refused device {device_id}: {reason}")
        self.device_id = device_id
        self.reason = reason


class LinkLost(Exception):
    """A device's connection ended or could not be made; the device tries again by itself."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
