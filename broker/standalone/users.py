"""Who there is, and by what they are known. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.scram import ScramCredential
from broker.standalone.certificates import CertificateRule
from broker.standalone.rules import NOTHING, Rules

NAME_LIMIT = 100
"""Characters. A SCRAM message with such a name is within its bound, in four-byte characters too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Each credential there is suffices alone; there is at least one."""

    name: str
    password_hash: str | None = field(default=None, repr=False)
    scram: ScramCredential | None = None
    certificate: CertificateRule | None = None
    rules: Rules = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """All of them. `anonymous` are the rules for clients that give no user name; None: there may be none such."""

    named: Mapping[str, User] = field(default_factory=dict)
    anonymous: Rules | None = None

    @property
    def lets_anybody_in(self) -> bool:
        """With nobody to tell apart, a user name that a client sends all the same says nothing."""
        return self.anonymous is not None and not self.named

    @property
    def lets_nobody_in(self) -> bool:
        return self.anonymous is None and not self.named

    def rules_of(self, username: str) -> Rules | None:
        """Of a user who has been let in; "" is anonymous. None when there is no such user any more."""
        if username and not self.lets_anybody_in:
            user = self.named.get(username)
            return None if user is None else user.rules
        return self.anonymous

    def must_end(self, username: str, newer: "Users") -> bool:
        """Whether a user's connections and sessions must end when `newer` takes over: they could go on with too much.

        That is who is gone, has another credential, may subscribe to less, or only claimed the name so far.
        """
        had, has = self.rules_of(username), newer.rules_of(username)
        if has is None:
            return True
        if had is not None and set(had.subscribe) - set(has.subscribe):
            return True
        if username and self.lets_anybody_in and not newer.lets_anybody_in:
            return True
        old, new = self.named.get(username), newer.named.get(username)
        return old is not None and new is not None and _has_other_credentials(old, new)


def _has_other_credentials(old: User, new: User) -> bool:
    return (
        old.password_hash not in (None, new.password_hash)
        or old.scram not in (None, new.scram)
        or old.certificate not in (None, new.certificate)
    )
