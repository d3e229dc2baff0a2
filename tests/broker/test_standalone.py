"""`python -m broker` as its users meet it: a process, its output and exit codes, and clients that are not ours."""

import asyncio
import os
import pty
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scramp import ScramClient

from broker import ReasonCode
from broker.packets import MQTT_5, Auth, Connack, Connect, Disconnect, Pingreq, Publish, Suback, Subscribe, Subscription
from broker.scram import METHOD, ScramCredential
from broker.standalone.passwords import hash_password
from tests.broker.clients import HOST
from tests.broker.standalone import (
    ROOT,
    Client,
    connected,
    mosquitto_pub,
    mosquitto_sub,
    run_broker,
    standalone,
)

ALICE = f'[[users]]\nname = "alice"\npassword_hash = "{hash_password("right horse")}"\n'
OWN = 'publish = ["devices/%u/#"]\nsubscribe = ["devices/%u/#", "clients/%c"]\n'
RIGHT = ("-u", "alice", "-P", "right horse")


# --- the command line


def test_help_teaches_with_examples() -> None:
    done = run_broker("--help")
    assert done.returncode == 0
    for text in (
        "--allow-anonymous",
        "--client-ca",
        "Examples",
        "hash-password",
        "--check",
        "kill -HUP",
        "[default: 1883]",
    ):
        assert text in done.stdout, text


@pytest.mark.parametrize(
    "arguments",
    [("--prot", "1883"), ("--port", "many"), ("--port", "65536"), ("--ws-port", "-1"), ("serve",), ("--password", "x")],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = run_broker(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_check_says_all_that_is_wrong_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text('prot = 1883\nmax_inflight = 0\n[[users]]\nname = "alice"\n')
    done = run_broker("--config", str(file), "--check")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"broker: {file}: ") for line in lines)
    assert "did you mean port?" in done.stderr
    assert run_broker("--config", str(file)).stderr == done.stderr  # and the start stops at the same

    file.write_text(ALICE)
    done = run_broker("--config", str(file), "--check")
    assert (done.returncode, done.stdout) == (0, "broker: the settings are in order\n")


@pytest.mark.parametrize("content", ["", "# nothing but this\n", "port = \n", "\0\0\0\0"])
def test_empty_or_broken_file_stops_the_start_even_where_anonymous_is_allowed(tmp_path: Path, content: str) -> None:
    """CVE-2018-12550: an empty file is no permission."""
    file = tmp_path / "broker.toml"
    file.write_text(content)
    done = run_broker("--config", str(file), "--allow-anonymous", "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"broker: {re.escape(str(file))}: .+\n", done.stderr)


def test_busy_port_is_one_line_that_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        done = run_broker("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("broker: cannot listen on 127.0.0.1:")
    assert "choose another port" in line


def test_address_of_another_machine_and_a_bad_directory_are_one_line_too(tmp_path: Path) -> None:
    done = run_broker("--host", "192.0.2.1", "--port", "0")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "file").write_text("no directory")
    done = run_broker("--port", "0", "--persistence", str(tmp_path / "file"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


# --- passwords


def test_hash_password_takes_it_from_a_pipe_and_prints_the_line(tmp_path: Path) -> None:
    done = run_broker("hash-password", stdin="right horse\n")
    assert done.returncode == 0
    assert re.fullmatch(r'password_hash = "\$argon2id\$v=19\$.+"\n', done.stdout)
    file = tmp_path / "broker.toml"
    file.write_text(f'[[users]]\nname = "alice"\n{done.stdout}')
    assert run_broker("--config", str(file), "--check").returncode == 0

    done = run_broker("hash-password", "--scram", "--iterations", "5000", stdin="right horse\n")
    assert re.fullmatch(r'scram = "SCRAM-SHA-256\$5000:.+"\n', done.stdout)
    file.write_text(f'[[users]]\nname = "alice"\n{done.stdout}')
    assert run_broker("--config", str(file), "--check").returncode == 0


@pytest.mark.parametrize("password", ["", "short", "x" * 2_000])
def test_hash_password_refuses_what_is_none(password: str) -> None:
    done = run_broker("hash-password", stdin=password + "\n")
    assert (done.returncode, done.stdout) == (2, "")


def test_password_is_never_an_argument() -> None:
    done = run_broker("hash-password", "right horse")
    assert done.returncode == 2
    assert run_broker("hash-password", "--password", "right horse").returncode == 2


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown() -> None:
    command = [sys.executable, "-m", "broker", "hash-password"]
    main, peer = pty.openpty()
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=peer, stdout=subprocess.PIPE, stderr=peer, start_new_session=True
    )
    os.close(peer)
    shown = b""
    for prompt in (b"Password", b"Repeat"):
        while prompt not in shown:
            shown += os.read(main, 1_024)
        time.sleep(0.2)  # until the terminal's echo is off
        os.write(main, b"right horse\n")
    out, _ = process.communicate(timeout=20)
    os.close(main)
    assert process.returncode == 0
    assert out.startswith(b'password_hash = "$argon2id$')
    assert b"right horse" not in shown


# --- who gets in


async def test_without_users_it_says_that_nobody_gets_in_and_what_to_write(tmp_path: Path) -> None:
    with standalone(tmp_path) as broker:
        assert f"listening on mqtt://127.0.0.1:{broker.port}" in broker.printed
        assert "Nobody can connect" in broker.printed
        assert "--allow-anonymous" in broker.printed
        assert "[[users]]" in broker.printed
        async with connected(broker.port) as client:
            assert await client.connack() == ReasonCode.NOT_AUTHORIZED
        async with connected(broker.port) as client:
            assert await client.connack(username="a", password=b"b") == ReasonCode.BAD_USER_NAME_OR_PASSWORD


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_anonymous_clients_talk_in_every_version(tmp_path: Path, version: str) -> None:
    with standalone(tmp_path, "--allow-anonymous") as broker:
        assert "Anybody may connect" in broker.printed
        with mosquitto_sub(broker.port, "-t", "greeting/#", "-v", "-V", version) as sub:
            assert mosquitto_pub(broker.port, "greeting/hello", "world", "-V", version).returncode == 0
            assert "greeting/hello world" in sub.output()


def test_users_get_in_with_their_password_and_keep_to_their_rules(tmp_path: Path) -> None:
    with standalone(tmp_path, toml=ALICE + OWN) as broker:
        assert "Nobody" not in broker.printed
        with mosquitto_sub(broker.port, "-t", "devices/alice/#", "-v", *RIGHT) as sub:
            assert mosquitto_pub(broker.port, "devices/bob/x", "1", *RIGHT).returncode == 0  # acknowledged, dropped
            assert mosquitto_pub(broker.port, "devices/alice/x", "2", *RIGHT).returncode == 0
            out = sub.output()
        assert "devices/alice/x 2" in out
        assert "devices/bob" not in out
        denied = mosquitto_pub(broker.port, "devices/bob/x", "1", "-V", "mqttv5", *RIGHT)
        assert "not authori" in (denied.stdout + denied.stderr).lower()
        for arguments in ((), ("-u", "alice", "-P", "wrong"), ("-u", "bob", "-P", "right horse")):
            refused = mosquitto_pub(broker.port, "devices/alice/x", "3", *arguments)
            assert refused.returncode != 0, arguments
            assert "refused" in refused.stderr.lower()


async def test_client_id_that_would_widen_a_rule_is_refused(tmp_path: Path) -> None:
    with standalone(tmp_path, toml=ALICE + OWN) as broker:
        for client_id in ("#", "+", "a/b", "$x"):
            async with connected(broker.port) as client:
                answer = await client.connack(client_id=client_id, username="alice", password=b"right horse")
                assert answer == ReasonCode.CLIENT_IDENTIFIER_NOT_VALID


async def test_guessing_is_answered_with_come_later(tmp_path: Path) -> None:
    with standalone(tmp_path, toml=ALICE) as broker:
        answers = []
        for number in range(8):
            async with connected(broker.port) as client:
                answers.append(await client.connack(username="alice", password=b"guess %d" % number))
        assert answers[:5] == [ReasonCode.BAD_USER_NAME_OR_PASSWORD] * 5
        assert ReasonCode.CONNECTION_RATE_EXCEEDED in answers[5:]


async def test_clients_cannot_write_lines_into_the_log(tmp_path: Path) -> None:
    with standalone(tmp_path, "--allow-anonymous") as broker:
        async with connected(broker.port) as client:
            name = "x\nERROR broker: forged \x1b[31m\u202e"
            await client.connack(client_id=name, username="alice", password=b"secret password")
        await broker.logged("forged")
        log = broker.log()
        assert not any(line.startswith("ERROR") for line in log.splitlines())
        assert "\x1b" not in log
        assert "\u202e" not in log
        assert "secret password" not in log


async def test_a_client_that_may_not_publish_does_not_fill_the_log(tmp_path: Path) -> None:
    with standalone(tmp_path, toml=ALICE + OWN) as broker:
        async with connected(broker.port) as client:
            assert await client.connack(username="alice", password=b"right horse") == 0
            for _ in range(3_000):
                client.send(Publish(topic="devices/bob/x", payload=b"1"))
            client.send(Pingreq())
            assert await client.receive() is not None
        await broker.logged("may not publish 'devices/bob/x'")
        assert broker.log().count("may not publish") == 100


async def test_unix_socket_is_for_its_own_user_only(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with standalone(tmp_path, "--allow-anonymous", "--port", "none", "--unix", str(path)) as broker:
        assert broker.ports == {}
        assert f"listening on unix:{path}" in broker.printed
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert await Client(reader, writer).connack() == 0
        writer.close()
        await writer.wait_closed()


# --- enhanced authentication


async def scram(client: Client, username: str, password: str) -> Connack:
    """Log in by SCRAM-SHA-256; the broker's last answer."""
    peer = ScramClient([METHOD], username, password)
    first = {"authentication_method": METHOD, "authentication_data": peer.get_client_first().encode()}
    client.send(Connect(protocol=MQTT_5, client_id="c1", properties=first))  # type: ignore[arg-type]
    challenge = await client.receive()
    assert isinstance(challenge, Auth)
    peer.set_server_first(challenge.properties["authentication_data"].decode())
    answer = await client.authenticate(peer.get_client_final().encode())
    assert isinstance(answer, Connack)
    if not answer.reason:
        peer.set_server_final(answer.properties["authentication_data"].decode())
    return answer


async def test_scram_lets_in_and_the_password_is_never_sent(tmp_path: Path) -> None:
    credential = ScramCredential.make("right horse", iterations=4096)
    toml = f'scram_secret = "0123456789abcdef"\n[[users]]\nname = "sam"\nscram = "{credential}"\n{OWN}'
    with standalone(tmp_path, toml=toml) as broker:
        async with connected(broker.port) as client:
            assert (await scram(client, "sam", "right horse")).reason == 0
            client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="devices/sam/x", qos=1),)))
            suback = await client.receive()
            assert isinstance(suback, Suback)
            assert list(suback.reasons) == [1]
            client.send(Publish(topic="devices/sam/x", payload=b"1"))  # the user name is the one proved
            received = await client.receive()
            assert isinstance(received, Publish)
            # again, on the connection that there is
            peer = ScramClient([METHOD], "sam", "right horse")
            challenge = await client.authenticate(peer.get_client_first().encode(), reason=0x19)
            assert isinstance(challenge, Auth)
            peer.set_server_first(challenge.properties["authentication_data"].decode())
            done = await client.authenticate(peer.get_client_final().encode())
            assert isinstance(done, Auth)
            assert done.reason == 0
            # and not as somebody else
            answer = await client.authenticate(ScramClient([METHOD], "tom", "x").get_client_first().encode(), 0x19)
            assert isinstance(answer, Disconnect)
            assert answer.reason == ReasonCode.NOT_AUTHORIZED
        for username, password in (("sam", "wrong horse"), ("tom", "right horse")):
            async with connected(broker.port) as client:
                assert (await scram(client, username, password)).reason == ReasonCode.NOT_AUTHORIZED
        async with connected(broker.port) as client:
            reason = await client.connack(properties={"authentication_method": "GSSAPI"})
            assert reason == ReasonCode.BAD_AUTHENTICATION_METHOD


# --- starting, stopping, staying


async def test_sigterm_says_goodbye_and_ends_with_0(tmp_path: Path) -> None:
    with standalone(tmp_path, "--allow-anonymous") as broker:
        async with connected(broker.port) as client:
            assert await client.connack() == 0
            broker.process.send_signal(signal.SIGTERM)
            assert await client.disconnected() == ReasonCode.SERVER_SHUTTING_DOWN
        assert broker.process.wait(20) == 0
        assert "Traceback" not in broker.log()


def test_ctrl_c_is_a_clean_end_too(tmp_path: Path) -> None:
    with standalone(tmp_path, "--allow-anonymous", "--persistence", str(tmp_path / "kept")) as broker:
        assert broker.stop(signal.SIGINT) == 0
        assert "Traceback" not in broker.log()


async def test_a_second_signal_hastens_the_stop(tmp_path: Path) -> None:
    """With a client that reads nothing of the megabytes for it, a stop takes seconds."""
    with standalone(tmp_path, "--allow-anonymous", "--persistence", str(tmp_path / "kept")) as broker:
        async with connected(broker.port, limit=1) as slow, connected(broker.port) as fast:
            assert await slow.connack(client_id="slow") == 0
            slow.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a", qos=0),)))
            assert isinstance(await slow.receive(), Suback)
            assert await fast.connack(client_id="fast") == 0
            for _ in range(40):
                fast.send(Publish(topic="a", payload=bytes(500_000)))
            await fast.writer.drain()
            await asyncio.sleep(0.5)
            broker.process.send_signal(signal.SIGTERM)
            await broker.logged("stopping")
            begun = time.monotonic()
            broker.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(broker.process.wait, 20) == 0
            assert time.monotonic() - begun < 1.5
        assert "in haste" in broker.log()
        assert "Traceback" not in broker.log()


def test_what_was_acknowledged_for_a_durable_session_survives_kill_9(tmp_path: Path) -> None:
    durable = ("-c", "-i", "keeper", "-q", "1", "-t", "kept/#")
    arguments = ("--allow-anonymous", "--persistence", str(tmp_path / "kept"))
    with standalone(tmp_path, *arguments) as broker:
        with mosquitto_sub(broker.port, *durable):
            pass
        for number in range(20):
            assert mosquitto_pub(broker.port, f"kept/{number}", f"message {number}").returncode == 0
        assert mosquitto_pub(broker.port, "retained", "still here", "-r").returncode == 0
        broker.process.kill()
        broker.process.wait()
    with standalone(tmp_path, *arguments) as broker:
        with mosquitto_sub(broker.port, *durable, count=20) as sub:
            out = sub.output()
        assert [f"message {number}" in out for number in range(20)] == [True] * 20
        with mosquitto_sub(broker.port, "-t", "retained") as sub:
            assert "still here" in sub.output()
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) & 0o077 == 0
    assert all(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in (tmp_path / "kept").iterdir())


def test_two_brokers_do_not_share_a_directory(tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    with standalone(tmp_path, "--allow-anonymous", "--persistence", kept):
        done = run_broker("--allow-anonymous", "--port", "0", "--persistence", kept)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


# --- reloads


async def test_sighup_brings_new_users_and_rules_and_leaves_the_others_connected(tmp_path: Path) -> None:
    bob = ALICE.replace("alice", "bob")
    with standalone(tmp_path, toml=ALICE + OWN) as broker:
        async with connected(broker.port) as alice:
            assert await alice.connack(username="alice", password=b"right horse") == 0
            await broker.reload(ALICE + OWN.replace('"clients/%c"', '"clients/%c", "news/#"') + bob + OWN)
            async with connected(broker.port) as client:
                assert await client.connack(client_id="c2", username="bob", password=b"right horse") == 0
            alice.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="news/x", qos=0),)))
            answer = await alice.receive()
            assert isinstance(answer, Suback)
            assert list(answer.reasons) == [0]


async def test_sighup_ends_those_who_lost_something(tmp_path: Path) -> None:
    bob, carol = ALICE.replace("alice", "bob"), ALICE.replace("alice", "carol")
    with standalone(tmp_path, toml=ALICE + OWN + bob + OWN + carol + OWN) as broker:
        async with connected(broker.port) as a, connected(broker.port) as b, connected(broker.port) as c:
            for client, name in ((a, "alice"), (b, "bob"), (c, "carol")):
                assert await client.connack(client_id=name, username=name, password=b"right horse") == 0
            new = re.sub(r"password_hash = .*", f'password_hash = "{hash_password("another")}"', bob)
            await broker.reload(ALICE + OWN + new + OWN)
            assert await b.disconnected() == ReasonCode.ADMINISTRATIVE_ACTION
            assert await c.disconnected() == ReasonCode.ADMINISTRATIVE_ACTION
            a.send(Publish(topic="devices/alice/x", payload=b"1", qos=1, packet_id=1))
            assert await a.receive() is not None
        async with connected(broker.port) as client:
            assert await client.connack(username="bob", password=b"right horse") != 0
        async with connected(broker.port) as client:
            assert await client.connack(username="carol", password=b"right horse") != 0


@pytest.mark.parametrize("broken", ["", "# gone\n", "[[users]]\nname = ", '[[users]]\nname = "alice"\n'])
async def test_a_reload_that_fails_keeps_what_there_was_and_says_why(tmp_path: Path, broken: str) -> None:
    with standalone(tmp_path, toml=ALICE + OWN) as broker:
        await broker.reload(broken, "not reloaded, all stays as it was: ")
        assert mosquitto_pub(broker.port, "devices/alice/x", "1", *RIGHT).returncode == 0
        assert mosquitto_pub(broker.port, "devices/alice/x", "1").returncode != 0
        broker.file.unlink()
        broker.process.send_signal(signal.SIGHUP)
        await broker.logged("cannot be read: No such file")
        assert mosquitto_pub(broker.port, "devices/alice/x", "1", *RIGHT).returncode == 0
        await broker.reload(ALICE + OWN)


async def test_a_reload_without_file_descriptors_keeps_what_there_was(tmp_path: Path) -> None:
    """CVE-2017-7652: Mosquitto fell back to its defaults."""
    with standalone(tmp_path, toml=ALICE + OWN) as broker:
        limits = resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        broker.process.send_signal(signal.SIGHUP)
        await broker.logged("not reloaded, all stays as it was: ")
        resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, limits)
        assert "Too many open files" in broker.log()
        assert mosquitto_pub(broker.port, "devices/alice/x", "1", *RIGHT).returncode == 0
        assert mosquitto_pub(broker.port, "devices/alice/x", "1").returncode != 0


async def test_what_needs_a_restart_is_named_at_a_reload(tmp_path: Path) -> None:
    with standalone(tmp_path, toml=ALICE) as broker:
        await broker.reload("max_inflight = 5\n" + ALICE)
        assert "max_inflight has changed in the file, which needs a restart" in broker.log()


async def test_sessions_kept_for_a_user_who_is_gone_are_forgotten_at_the_start(tmp_path: Path) -> None:
    bob = ALICE.replace("alice", "bob") + OWN
    kept = ("--persistence", str(tmp_path / "kept"))
    with standalone(tmp_path, *kept, toml=ALICE + OWN + bob) as broker:
        durable = ("-c", "-i", "b1", "-q", "1", "-t", "devices/bob/#", "-u", "bob", "-P", "right horse")
        with mosquitto_sub(broker.port, *durable):
            pass
    with standalone(tmp_path, *kept, toml=ALICE + OWN) as broker:
        await broker.logged("'bob' has lost rights")


async def test_a_file_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").touch(mode=0o644)
    (tmp_path / "broker.toml").chmod(0o644)
    with standalone(tmp_path, toml=ALICE) as broker:
        await broker.logged("can be read by every user of this machine")
