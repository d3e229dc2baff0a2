"""The broker's TOML file and flags: what they give, and that every mistake is told, all at once."""

import asyncio
import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from broker import Broker, BrokerOptions, ConnectRequest, ReasonCode
from broker.native import system_topics
from broker.scram import ScramCredential
from broker.standalone import passwords
from broker.standalone.rules import EVERYTHING, Rules
from broker.standalone.settings import Settings, SettingsError, load, names
from tests.broker.certificates import Authority

HASH = passwords._NOBODYS
SCRAM = str(ScramCredential.make("a password", iterations=4096))
USER = f'[[users]]\nname = "alice"\npassword_hash = "{HASH}"\npublish = ["devices/%u/#"]\n'
DOCUMENT = Path(__file__).parents[2] / "docs" / "broker.md"


def read(tmp_path: Path, toml: str, **flags: Any) -> Settings:
    file = tmp_path / "broker.toml"
    file.write_text(toml)
    return load(file, flags)


def mistakes(tmp_path: Path, toml: str, **flags: Any) -> list[str]:
    """Each without the file's name."""
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, toml, **flags)
    return [one.removeprefix(f"{tmp_path / 'broker.toml'}: ") for one in caught.value.mistakes]


def test_without_file_and_flags_the_options_are_the_defaults_and_nobody_gets_in() -> None:
    found = load(None)
    assert found.options == BrokerOptions()
    assert found.users.lets_nobody_in


def test_every_option_of_the_broker_is_a_setting_of_that_name() -> None:
    fields = {one.name for one in dataclasses.fields(BrokerOptions)}
    assert fields - set(names()) == {"tls"}


def test_what_the_file_says_holds_and_flags_win(tmp_path: Path) -> None:
    toml = (
        'port = 1884\nws_port = 8083\nkeepalive_cap_s = 60\nqueue_full = "disconnect"\nconnect_timeout_s = 3\n' + USER
    )
    found = read(tmp_path, toml, port=1885, ws_port=None).options
    assert (found.port, found.ws_port, found.keepalive_cap_s, found.queue_full) == (1885, 8083, 60, "disconnect")
    assert found.connect_timeout_s == 3.0


def test_a_port_can_be_none(tmp_path: Path) -> None:
    assert read(tmp_path, 'port = "none"\nws_port = 8083').options.port is None
    assert read(tmp_path, "ws_port = 8083", port="none").options.port is None


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    found = read(tmp_path, 'persistence = "kept"\nunix_path = "/run/broker.sock"', persistence=None).options
    assert found.persistence == tmp_path / "kept"
    assert found.unix_path == Path("/run/broker.sock")
    assert read(tmp_path, "port = 1", persistence=Path("here")).options.persistence == Path("here")


def test_users_and_rules_are_read(tmp_path: Path) -> None:
    toml = f"""
{USER}
[[users]]
name = "bob"
scram = "{SCRAM}"
certificate = "CN=bob"
subscribe = ["#"]

[anonymous]
publish = ["public/%c"]
"""
    users = read(tmp_path, toml).users
    assert set(users.named) == {"alice", "bob"}
    assert users.named["alice"].rules == Rules(publish=("devices/%u/#",))
    assert str(users.named["bob"].scram) == SCRAM
    assert users.named["bob"].certificate is not None
    assert users.anonymous == Rules(publish=("public/%c",))


def test_allow_anonymous_lets_everybody_do_everything_unless_rules_say_less(tmp_path: Path) -> None:
    assert load(None, {"allow_anonymous": True}).users.anonymous == EVERYTHING
    assert read(tmp_path, "allow_anonymous = true").users.anonymous == EVERYTHING
    assert read(tmp_path, '[anonymous]\nsubscribe = ["a"]', allow_anonymous=True).users.anonymous == Rules(
        subscribe=("a",)
    )
    assert read(tmp_path, "allow_anonymous = false").users.anonymous is None


# --- mistakes


def test_all_mistakes_are_told_with_the_nearest_name(tmp_path: Path) -> None:
    toml = f"""
max_conections = 5
port = 70000
keepalive_cap_s = "long"
max_inflight = 0
queue_full = "drop"
zzz = 1

[[users]]
name = "a/b"
password_hash = "hunter2"
publish = ["a/#/b", "ok", "$SYS/x"]

[[users]]
name = "bob"
pasword_hash = "{HASH}"
subscribe = "devices/#"

[anonymous]
publish = ["%u/x"]
"""
    told = mistakes(tmp_path, toml)
    expected = [
        r"max_conections is no setting; did you mean max_connections\?",
        r"port .* 65535",
        r"keepalive_cap_s .*integer",
        r"max_inflight .* 1",
        r"queue_full .*'drop_oldest'.*",
        r"zzz is no setting",
        r"users 1 \(a/b\): name must not be empty nor hold \+ # / \$",
        r"users 1 \(a/b\): password_hash is no argon2id hash; `python -m broker hash-password` makes one",
        r"users 1 \(a/b\): publish\[0\] is no topic filter.*",
        r"users 1 \(a/b\): publish\[2\] begins with \$.*",
        r"users 2 \(bob\): pasword_hash is no setting; did you mean password_hash\?",
        r"users 2 \(bob\): subscribe .*list",
        r"anonymous: publish\[0\] has %u; there is %c here, and %% for a percent sign",
    ]
    for pattern in expected:
        assert any(re.fullmatch(pattern, one) for one in told), (pattern, told)
    assert len(told) == len(expected)
    assert not any("hunter2" in one for one in told)


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("", "says nothing"),
        ("# port = 1883\n\n", "says nothing"),
        ("port = ", "not valid TOML"),
        ("port = 1\nport = 2", "not valid TOML"),
        ('users = "alice"', "[[users]]"),
        ("users = [1]", "[[users]]"),
        ("[users]\nname = 1", "[[users]]"),
        ('[[users]]\nname = "alice"', "nobody could log in"),
        (f'[[users]]\npassword_hash = "{HASH}"', "name is missing"),
        (f'[[users]]\nname = ""\npassword_hash = "{HASH}"', "must not be empty"),
        (f'[[users]]\nname = "a\\u0000"\npassword_hash = "{HASH}"', "+ # / $"),
        (f'[[users]]\nname = "a\\nb"\npassword_hash = "{HASH}"', "printable"),
        (f'[[users]]\nname = "\\uFF41"\npassword_hash = "{HASH}"', "NFKC"),
        (f'[[users]]\nname = "{"a" * 101}"\npassword_hash = "{HASH}"', "100"),
        (USER + USER, "two users alice"),
        (USER + "port = 1884", "above the first [table]"),
        (USER + "certificate = 5", "text"),
        (USER + 'certificate = "boiler"', "subject"),
        (USER + 'scram = "x"', "SCRAM-SHA-256$"),
        (USER + 'password_hash2 = "x"', "did you mean password_hash?"),
        (USER.replace("alice", "bob") + 'certificate = "CN=a"\n' + USER + 'certificate = "CN=a"', "same certificate"),
        ("anonymous = true", "anonymous"),
        ("allow_anonymous = false\n[anonymous]", "take one of them out"),
        ("allow_anonymous = true\n" + USER, "say below [anonymous]"),
        ('allow_anonymous = "yes"', "allow_anonymous"),
        ('port = "1883"', "port"),
        ("port = true", "port"),
        ("port = -1", "port"),
        ('port = "none"', "no listener"),
        ("port = 1883\nws_port = 1883", "both 1883"),
        ('host = ""', "host is empty"),
        ("persistence = true", "persistence"),
        ('persistence = ""', "persistence is empty"),
        ("max_queued = 60001", "max_queued"),
        ("max_packet_bytes = 268435461", "max_packet_bytes"),
        ("sys_interval_s = -1", "sys_interval_s"),
        ("connect_timeout_s = 0", "connect_timeout_s"),
        ("connect_timeout_s = inf", "connect_timeout_s"),
        ("connect_timeout_s = nan", "connect_timeout_s"),
        ('persistence_synchronous = "off"', "persistence_synchronous"),
        ('scram_secret = "short"', "scram_secret"),
        ('log_level = "loud"', "log_level"),
        ("tls_port = 8883", "tls_port needs tls_cert and tls_key"),
        ("wss_port = 8883", "wss_port needs tls_cert and tls_key"),
        ('client_ca = "ca.pem"', "client_ca needs tls_cert and tls_key"),
        ('tls_cert = "a.pem"', "belong together"),
        ('tls_cert = "a.pem"\ntls_key = "a.key"', "cannot be read: No such file"),
        ("tls = 1", "tls is no setting"),
        ("[nonsense]\na = 1", "nonsense is no setting"),
    ],
)
def test_one_mistake_stops_the_start(tmp_path: Path, toml: str, word: str) -> None:
    """CVE-2018-12550 and -12551: nothing is taken for less than it says."""
    told = mistakes(tmp_path, toml)
    assert any(word in one for one in told), told
    assert HASH not in "".join(told)


def test_a_file_of_zeros_or_of_latin_1_is_a_mistake(tmp_path: Path) -> None:
    for raw in (b"\0" * 4096, b'host = "\xe4"', b"[" * 100_000):
        (tmp_path / "broker.toml").write_bytes(raw)
        with pytest.raises(SettingsError):
            load(tmp_path / "broker.toml")


@pytest.mark.parametrize("kind", ["missing", "directory", "unreadable"])
def test_file_that_cannot_be_read_is_a_mistake(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "broker.toml"
    if kind == "directory":
        file.mkdir()
    elif kind == "unreadable":
        file.write_text("port = 1883")
        file.chmod(0)
        if os.access(file, os.R_OK):
            pytest.skip("root reads everything")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(file)


def test_mistake_in_a_flag_names_the_flag(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, "port = 1", log_level="loud")
    assert told.startswith("--log-level: ")
    with pytest.raises(SettingsError) as caught:
        load(None, {"client_ca": Path("ca.pem")})
    assert caught.value.mistakes == ["client_ca needs tls_cert and tls_key"]


# --- certificates


def test_certificates_are_loaded_and_tls_gets_its_usual_port(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server = authority.sign("server", server=True)
    toml = f'tls_cert = "{server.cert}"\ntls_key = "{server.key}"\n'
    found = read(tmp_path, toml)
    assert found.context is not None
    assert found.options.tls_port == 8883
    assert read(tmp_path, toml + "wss_port = 8443").options.tls_port is None
    assert read(tmp_path, toml + f'client_ca = "{authority.ca}"').context is not None


def test_certificate_files_that_do_not_fit_are_mistakes(tmp_path: Path) -> None:
    """L5: nothing falls back to no verification."""
    authority = Authority(tmp_path / "ca")
    server, other = authority.sign("server", server=True), authority.sign("other", server=True)
    empty, text = tmp_path / "empty.pem", tmp_path / "text.pem"
    empty.write_text("")
    text.write_text("not PEM")
    good = f'tls_cert = "{server.cert}"\ntls_key = "{server.key}"\n'
    for toml, word in (
        (f'tls_cert = "{server.cert}"\ntls_key = "{other.key}"', "do not go together"),
        (f'tls_cert = "{text}"\ntls_key = "{server.key}"', "do not go together"),
        (f'tls_cert = "{empty}"\ntls_key = "{server.key}"', "is empty"),
        (good + f'client_ca = "{empty}"', "is empty"),
        (good + f'client_ca = "{text}"', "holds no certificate"),
        (good + f'client_ca = "{tmp_path}/none.pem"', "cannot be read"),
        (good + f'client_crl = "{text}"', "client_crl needs client_ca"),
        (good + f'client_ca = "{authority.ca}"\nclient_crl = "{text}"', "holds no revocation list"),
        (good + 'client_certificate = "optional"', "client_certificate needs client_ca"),
    ):
        assert any(word in one for one in mistakes(tmp_path, toml)), (toml, word)


# --- the documentation


def test_the_file_in_the_documentation_names_every_setting_with_its_default(tmp_path: Path) -> None:
    """Settings stand in it as comments, `# name = value`; what is not a comment is an example that works."""
    block = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    text = block[1]
    named = set(re.findall(r"^#? ?(\w+) = ", text, re.MULTILINE))
    assert set(names()) - {"users", "anonymous"} <= named
    defaults = re.findall(r"^# (\w+) = (.+?)(?:  #.*)?$", text, re.MULTILINE)
    simple = "\n".join(f"{name} = {value}" for name, value in defaults if not _is_an_example(name))
    assert read(tmp_path, simple).options == BrokerOptions()
    assert set(read(tmp_path, text).users.named)


def _is_an_example(name: str) -> bool:
    """Settings whose default is nothing."""
    default = {one.name: one.default for one in dataclasses.fields(BrokerOptions)}.get(name, 0)
    return default is None or name in ("allow_anonymous", "scram_secret") or name.startswith(("tls_", "client_"))


async def test_the_example_in_the_documentation_runs() -> None:
    (example,) = re.findall(r"```python\n(import asyncio\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    text = example.replace("port=1883", "port=0").replace("asyncio.run(main())", "")
    parts: dict[str, Any] = {}
    exec(compile(text, "docs/broker.md", "exec"), parts)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(parts["main"](), 0.3)
    request = ConnectRequest(client_id="c", username="alice", password=b"guess", address="")
    assert await parts["OwnTopics"]().connect(request) == ReasonCode.BAD_USER_NAME_OR_PASSWORD


async def test_every_metric_and_system_topic_is_in_the_documentation(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    broker = Broker(BrokerOptions(port=0, persistence=tmp_path / "kept"))
    await broker.start()
    metrics = broker.metrics()
    await broker.stop()
    assert {name for name in metrics if f"| `{name}` |" not in text} == set()
    topics = {topic.removeprefix(system_topics.PREFIX) for topic, _ in system_topics.system_messages("1", {})}
    assert {topic for topic in topics if f"| `{topic}` |" not in text} == set()
