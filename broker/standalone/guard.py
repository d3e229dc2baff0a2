"""A Guard with users and rules from a file: deny by default, the same answer and time for an unknown user."""

from broker.engine import ConnectRequest
from broker.reason import ReasonCode
from broker.standalone.backoff import LoginBackoff
from broker.standalone.passwords import LENGTH_LIMIT, Busy, PasswordChecker
from broker.standalone.rules import NOTHING, Rules, is_plain
from broker.standalone.users import NAME_LIMIT, User, Users


class StaticGuard:
    """Implements broker.engine.VersionedGuard."""

    def __init__(self, users: Users, *, backoff: LoginBackoff | None = None) -> None:
        self._backoff = backoff or LoginBackoff()
        self._passwords = PasswordChecker()
        self._bound: dict[str, Rules] = {}
        """Each user's rules with the name put in; not where they ask for the client id, as there is no end of these."""
        self._version = 0
        self.replace(users)

    @property
    def users(self) -> Users:
        return self._users

    @property
    def rules_version(self) -> int:
        return self._version

    def replace(self, users: Users) -> None:
        """These users and rules hold from now on."""
        self._users = users
        self._passwords.replace(
            [(user.name, user.password_hash) for user in users.named.values() if user.password_hash is not None]
        )
        self._bound.clear()
        self._version += 1

    def close(self) -> None:
        self._passwords.close()

    async def connect(self, request: ConnectRequest) -> ReasonCode:
        """Who it is, then whether its client id fits the rules of that user."""
        users = self._users
        code = await self._authenticate(request, users)
        if code.is_error:
            return code
        username = request.authenticated_as or request.username or ""
        if users is not self._users and users.must_end(username, self._users):  # while the password was checked
            return ReasonCode.NOT_AUTHORIZED
        rules = self._users.rules_of(username)
        if rules is None:
            return ReasonCode.NOT_AUTHORIZED
        if rules.needs_client_id and not is_plain(request.client_id):
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        return ReasonCode.SUCCESS

    def publish(self, client_id: str, username: str, topic: str) -> ReasonCode:
        allowed = self._rules(client_id, username).may_publish(topic)
        return ReasonCode.SUCCESS if allowed else ReasonCode.NOT_AUTHORIZED

    async def subscribe(self, client_id: str, username: str, topic_filter: str) -> ReasonCode:
        allowed = self._rules(client_id, username).may_subscribe(topic_filter)
        return ReasonCode.SUCCESS if allowed else ReasonCode.NOT_AUTHORIZED

    def _rules(self, client_id: str, username: str) -> Rules:
        bound = self._bound.get(username)
        if bound is None:
            rules = self._users.rules_of(username)
            if rules is None:
                return NOTHING
            bound = rules.bind(username=username, client_id=client_id)
            if username in self._users.named and not rules.needs_client_id:
                self._bound[username] = bound
        return bound

    async def _authenticate(self, request: ConnectRequest, users: Users) -> ReasonCode:
        username = request.username or ""
        if request.authenticated_as is not None:
            user = users.named.get(request.authenticated_as)
            is_theirs = user is not None and user.scram is not None and username in ("", user.name)
            return ReasonCode.SUCCESS if is_theirs else ReasonCode.NOT_AUTHORIZED
        if not username or users.lets_anybody_in:
            return ReasonCode.NOT_AUTHORIZED if users.anonymous is None else ReasonCode.SUCCESS
        user = users.named.get(username)
        if _shows_certificate(user, request.certificate):
            return ReasonCode.SUCCESS
        if request.password is None or len(request.password) > LENGTH_LIMIT or len(username) > NAME_LIMIT:
            return ReasonCode.BAD_USER_NAME_OR_PASSWORD
        return await self._check_password(request.address, username, request.password, user)

    async def _check_password(self, address: str, username: str, password: bytes, user: User | None) -> ReasonCode:
        """The throttle comes before what is remembered, or guesses at a user who is logged in would be free.

        The same guess at the same time is one guess: when all come back at once, they must not throttle each other.
        """
        stored = None if user is None else user.password_hash
        mark = self._passwords.mark(username, password, stored)
        joins = self._passwords.is_running(mark)
        if not joins and self._backoff.wait_s(address, username) > 0:
            return ReasonCode.CONNECTION_RATE_EXCEEDED
        if not self._passwords.is_known(username, mark):
            if not joins:
                self._backoff.begin(address, username)
            try:
                fits = await self._passwords.check(username, password, stored, mark)
            except Busy:
                self._backoff.take_back(address, username)
                return ReasonCode.SERVER_BUSY
            if not fits:
                if not joins:
                    self._backoff.failed_begun(address, username)
                return ReasonCode.BAD_USER_NAME_OR_PASSWORD
        self._backoff.succeeded(address, username)
        return ReasonCode.SUCCESS


def _shows_certificate(user: User | None, certificate: bytes | None) -> bool:
    return (
        user is not None
        and user.certificate is not None
        and certificate is not None
        and user.certificate.fits(certificate)
    )
