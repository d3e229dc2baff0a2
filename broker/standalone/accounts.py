"""Users and their rules as they stand in the file, checked one by one."""

import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from broker.scram import ScramCredential
from broker.standalone.certificates import CertificateRule
from broker.standalone.passwords import fault_of_hash
from broker.standalone.rules import EVERYTHING, Rules, fault_of, is_plain
from broker.standalone.users import NAME_LIMIT, User, Users


def _name(text: str) -> str:
    if not is_plain(text):
        raise ValueError("must not be empty nor hold + # / $")  # it stands for %u in topic filters
    if not text.isprintable() or text != text.strip() or unicodedata.normalize("NFKC", text) != text:
        raise ValueError("must be printable, in normal form (NFKC) and without spaces around it")
    return text


def _hash(text: str) -> str:
    if (fault := fault_of_hash(text)) is not None:
        raise ValueError(fault)
    return text


def _scram(value: object) -> ScramCredential:
    if not isinstance(value, str):
        raise ValueError("should be a text")
    return ScramCredential.parse(value)


def _certificate(value: object) -> CertificateRule:
    if not isinstance(value, str):
        raise ValueError("should be a text")
    return CertificateRule.parse(value)


def _rule(*, publishing: bool, variables: Sequence[str]) -> AfterValidator:
    def check(text: str) -> str:
        if (fault := fault_of(text, publishing=publishing, variables=variables)) is not None:
            raise ValueError(fault)
        return text

    return AfterValidator(check)


_Publish = Annotated[str, _rule(publishing=True, variables=("u", "c"))]
_Subscribe = Annotated[str, _rule(publishing=False, variables=("u", "c"))]
_AnonymousPublish = Annotated[str, _rule(publishing=True, variables=("c",))]
_AnonymousSubscribe = Annotated[str, _rule(publishing=False, variables=("c",))]


class UserEntry(BaseModel):
    """One [[users]]."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=NAME_LIMIT), AfterValidator(_name)]
    password_hash: Annotated[str, AfterValidator(_hash)] | None = None
    scram: Annotated[ScramCredential, PlainValidator(_scram)] | None = None
    certificate: Annotated[CertificateRule, PlainValidator(_certificate)] | None = None
    publish: list[_Publish] = []
    subscribe: list[_Subscribe] = []

    @model_validator(mode="after")
    def _can_log_in(self) -> "UserEntry":
        if self.password_hash is None and self.scram is None and self.certificate is None:
            raise ValueError("has no password_hash, scram or certificate, so nobody could log in")  # CVE-2018-12551
        return self

    def user(self) -> User:
        rules = Rules(publish=tuple(self.publish), subscribe=tuple(self.subscribe))
        return User(
            name=self.name,
            password_hash=self.password_hash,
            scram=self.scram,
            certificate=self.certificate,
            rules=rules,
        )


class AnonymousEntry(BaseModel):
    """[anonymous]: there is no user name, hence no %u."""

    model_config = ConfigDict(extra="forbid", strict=True)

    publish: list[_AnonymousPublish] = []
    subscribe: list[_AnonymousSubscribe] = []


def users_of(
    entries: Sequence[UserEntry], anonymous: AnonymousEntry | None, *, let_in: bool
) -> tuple[Users, list[str]]:
    """All users, and what is wrong between them. `let_in`: anonymous clients may do all where no rules say less."""
    faults: list[str] = []
    named: dict[str, User] = {}
    certificates: dict[CertificateRule, str] = {}
    for entry in entries:
        if entry.name in named:
            faults.append(f"there are two users {entry.name}")
        if entry.certificate is not None:
            other = certificates.setdefault(entry.certificate, entry.name)
            if other != entry.name:
                faults.append(f"users {other} and {entry.name} have the same certificate")
        named[entry.name] = entry.user()
    rules: Rules | None = None
    if anonymous is not None:
        rules = Rules(publish=tuple(anonymous.publish), subscribe=tuple(anonymous.subscribe))
    elif let_in:
        rules = EVERYTHING
    return Users(named=named, anonymous=rules), faults
