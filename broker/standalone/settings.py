"""The broker's settings: flags over the TOML file over defaults, and every mistake in them at once.

All fields of BrokerOptions are settings under their own names. A relative path in the file is relative to the file.
What cannot be read, says nothing, or has a single mistake is no configuration: nothing is started with the rest of it.
"""

import difflib
import ssl
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from broker.native.options import BrokerOptions
from broker.standalone.accounts import AnonymousEntry, UserEntry, users_of
from broker.standalone.tls import TlsError, TlsFiles, make_context
from broker.standalone.users import Users

SIZE_LIMIT = 16 * 1024 * 1024
_DEFAULT_TLS_PORT = 8883
_FLAG_NAMES = {"unix_path": "unix"}
_NOT_SETTINGS = frozenset({"tls"})  # made from the files
#: What the protocol or the disk bounds; elsewhere there is no upper bound.
_HIGHEST = {
    "max_packet_bytes": 268_435_460,
    "max_connect_bytes": 268_435_460,
    "keepalive_cap_s": 65_535,
    "max_undone": 65_535,
    "max_inflight": 65_535,
    "max_queued": 60_000,
    "max_topic_bytes": 65_535,
    "topic_alias_maximum": 65_535,
    "session_expiry_s": 0xFFFF_FFFE,
}
_MAY_BE_ZERO = frozenset({"session_expiry_s", "topic_alias_maximum", "max_retained", "max_retained_bytes"})


class SettingsError(Exception):
    """The settings have mistakes; `mistakes` are all of them, a line each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked, and complete but for `options.tls`, which the listeners share over reloads."""

    options: BrokerOptions
    users: Users
    scram_secret: bytes | None = field(default=None, repr=False)
    log_level: str = "info"
    tls_files: TlsFiles | None = None
    context: ssl.SSLContext | None = None
    file: Path | None = None


def load(file: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file and flags by name (None: not given). Raises SettingsError."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    document = {} if file is None else _anchored(_read(file), file.absolute().parent)
    return _Check(document, given, file).settings()


def names() -> list[str]:
    """Every setting that stands at the top of the file."""
    return [*_MODEL.model_fields, "anonymous", "users"]


class _Check:
    """One reading of the settings: what is right is used to find what else is wrong."""

    def __init__(self, document: dict[str, Any], flags: dict[str, Any], file: Path | None) -> None:
        self._document = document
        self._flags = flags
        self._file = file
        self._mistakes: list[str] = []

    def settings(self) -> Settings:
        plain = {name: value for name, value in self._document.items() if name not in ("users", "anonymous")}
        values = self._valid(_MODEL, {**plain, **self._flags})
        users = self._users(values)
        files = self._tls_files(values)
        context = self._context(files)
        self._listeners(values)
        options = {one.name: values[one.name] for one in fields(BrokerOptions) if one.name in values}
        try:
            broker_options = BrokerOptions(**options)
        except ValueError as error:
            self._add(str(error))
        if self._mistakes:
            raise SettingsError(self._mistakes)
        secret = values["scram_secret"]
        return Settings(
            options=broker_options,
            users=users,
            scram_secret=secret.encode() if secret else None,
            log_level=values["log_level"],
            tls_files=files,
            context=context,
            file=self._file,
        )

    def _users(self, values: dict[str, Any]) -> Users:
        entries: list[UserEntry] = []
        listed = self._document.get("users", [])
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            self._add("users are written one by one, each below a line [[users]]")
            listed = []
        for number, given in enumerate(listed, 1):
            name = given.get("name")
            place = f"users {number} ({name:.64})" if isinstance(name, str) else f"users {number}"
            try:
                entries.append(UserEntry(**given))
            except ValidationError as error:
                self._explain(error, UserEntry, f"{place}: ")
        anonymous: AnonymousEntry | None = None
        if (given := self._document.get("anonymous")) is not None:
            try:
                anonymous = AnonymousEntry(**given) if isinstance(given, dict) else AnonymousEntry.model_validate(given)
            except ValidationError as error:
                self._explain(error, AnonymousEntry, "anonymous: ")
        allow = values["allow_anonymous"]
        if allow is False and given is not None:
            self._add("allow_anonymous is false, yet there is [anonymous]: take one of them out")
        if allow and listed and given is None:
            self._add("allow_anonymous with users: say below [anonymous] what clients without a user name may do")
        users, faults = users_of(entries, anonymous, let_in=bool(allow))
        self._mistakes += [self._at(fault) for fault in faults]
        return users

    def _tls_files(self, values: dict[str, Any]) -> TlsFiles | None:
        cert, key, client_ca = values["tls_cert"], values["tls_key"], values["client_ca"]
        if (cert is None) != (key is None):
            self._add("tls_cert and tls_key belong together: give both or neither")
        if cert is None or key is None:
            for name in ("client_ca", "tls_port", "wss_port"):
                if values[name] is not None and cert is None and key is None:
                    self._add(f"{name} needs tls_cert and tls_key")
            if client_ca is None and values["client_crl"] is not None:
                self._add("client_crl needs client_ca")
            return None
        if client_ca is None:
            for name, default in (("client_crl", None), ("client_certificate", "required")):
                if values[name] != default:
                    self._add(f"{name} needs client_ca")
        if values["tls_port"] is None and values["wss_port"] is None:
            values["tls_port"] = _DEFAULT_TLS_PORT
        return TlsFiles(
            cert=cert,
            key=key,
            client_ca=client_ca,
            client_crl=values["client_crl"],
            client_certificate=values["client_certificate"],
        )

    def _context(self, files: TlsFiles | None) -> ssl.SSLContext | None:
        if files is None:
            return None
        try:
            return make_context(files)
        except TlsError as error:
            self._add(str(error))
            return None

    def _listeners(self, values: dict[str, Any]) -> None:
        taken: dict[int, str] = {}
        for name in ("port", "tls_port", "ws_port", "wss_port"):
            port = values[name]
            if port and port in taken:
                self._add(f"{name} and {taken[port]} are both {port}")
            elif port:
                taken[port] = name
        if not values["host"]:
            self._add('host is empty; "0.0.0.0" and "::" are all addresses')
        if all(values[name] is None for name in ("port", "tls_port", "ws_port", "wss_port", "unix_path")):
            self._add("there is no listener: port, tls_port, ws_port, wss_port or unix_path must be given")

    def _valid(self, model: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
        """The values of a model; what is wrong is noted and left at its default."""
        try:
            return _values(model(**given))
        except ValidationError as error:
            self._explain(error, model, "")
            wrong = {one["loc"][0] for one in error.errors(include_url=False) if one["loc"]}
            return _values(model(**{name: value for name, value in given.items() if name not in wrong}))

    def _explain(self, error: ValidationError, model: type[BaseModel], place: str) -> None:
        """One line a mistake: where, what, and never a value, as it may be a secret."""
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            head, *rest = [str(part) for part in one["loc"] if not str(part).startswith("function-")] or [""]
            name = head + "".join(f"[{part}]" for part in rest)
            if one["type"] == "extra_forbidden":
                self._add(f"{place}{self._unknown(head, list(model.model_fields), place)}", head)
            elif one["type"] == "missing":
                self._add(f"{place}{name} is missing", head)
            else:
                words = one["msg"].removeprefix("Value error, ").removeprefix("Input ")
                self._add(f"{place}{name} {words[0].lower()}{words[1:]}" if name else f"{place}{words}", head)

    def _unknown(self, name: str, known: list[str], place: str) -> str:
        if place and name in _MODEL.model_fields:
            return f"{name} is a setting of the broker: write it above the first [table]"
        if not place:
            known = names()
        close = difflib.get_close_matches(name, known, 1)
        return f"{name:.64} is no setting" + (f"; did you mean {close[0]}?" if close else "")

    def _add(self, mistake: str, name: str = "") -> None:
        self._mistakes.append(self._at(mistake, name))

    def _at(self, mistake: str, name: str = "") -> str:
        if name in self._flags:
            return f"--{_FLAG_NAMES.get(name, name).replace('_', '-')}: {mistake}"
        return mistake if self._file is None else f"{self._file}: {mistake}"


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as source:
            raw = source.read(SIZE_LIMIT + 1)
        if len(raw) > SIZE_LIMIT:
            raise SettingsError([f"{file}: over 16 MiB"])
        document = tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise SettingsError([f"{file}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{file}: is not valid TOML: {error}"]) from error
    except RecursionError as error:
        raise SettingsError([f"{file}: is nested too deeply"]) from error
    if not document:
        # a file that was cut off must not count as one without restrictions [CVE-2018-12550]
        raise SettingsError([f"{file}: says nothing; for all defaults leave --config out"])
    return document


def _anchored(document: dict[str, Any], directory: Path) -> dict[str, Any]:
    paths = [name for name, one in _MODEL.model_fields.items() if Path in get_args(one.annotation)]
    return {
        name: str(directory / value) if name in paths and isinstance(value, str) and value else value
        for name, value in document.items()
    }


def _values(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _path(value: object) -> object:
    if isinstance(value, str):
        if not value:
            raise ValueError("is empty")
        return Path(value)
    return value


def _port(value: object) -> object:
    return None if value == "none" else value


def _file_model() -> type[BaseModel]:
    """BrokerOptions as pydantic sees it, and what this program adds."""
    hints = get_type_hints(BrokerOptions)
    found: dict[str, Any] = {}
    for one in fields(BrokerOptions):
        if one.name in _NOT_SETTINGS:
            continue
        found[one.name] = (_annotated(one.name, hints[one.name], one.default), one.default)
    found |= {
        "allow_anonymous": (bool | None, None),
        "tls_cert": (_annotated("tls_cert", Path | None, None), None),
        "tls_key": (_annotated("tls_key", Path | None, None), None),
        "client_ca": (_annotated("client_ca", Path | None, None), None),
        "client_crl": (_annotated("client_crl", Path | None, None), None),
        "client_certificate": (Literal["required", "optional"], "required"),
        "scram_secret": (Annotated[str, Field(min_length=16)] | None, None),
        "log_level": (Literal["debug", "info", "warning", "error"], "info"),
    }
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model("FileSettings", __config__=config, **found)


def _annotated(name: str, hint: Any, default: object) -> Any:
    """A field's type with the bounds that belong to it."""
    kinds = set(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else {hint}
    if name.endswith("port"):
        return Annotated[Annotated[int, Field(ge=0, le=65_535)] | None, BeforeValidator(_port)]
    if Path in kinds:
        return Annotated[hint, BeforeValidator(_path)]
    if int in kinds:
        low = 0 if name in _MAY_BE_ZERO or default == 0 else 1
        return Annotated[hint, Field(ge=low, le=_HIGHEST.get(name))]
    if float in kinds:
        return (
            Annotated[hint, Field(ge=0)] if default == 0 or name == "sys_interval_s" else Annotated[hint, Field(gt=0)]
        )
    return hint


_MODEL = _file_model()
