"""What can go wrong in the web server itself. What goes wrong in a request is a web.api.problem.Problem.

WebError
└── ListenError      the world's: an address cannot be bound
"""


class WebError(Exception):
    """The web server could not do what was asked."""


class ListenError(WebError):
    """An address cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {reason}")
        self.host = host
        self.port = port
        self.reason = reason
