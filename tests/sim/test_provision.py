"""Getting credentials: creating devices, adding to existing ones, the file, and clear words when it does not work."""

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from firmware_sim import BadOptions, LoginRefused, ServerUnreachable, SimError, SimOptions, run
from firmware_sim.credentials import CredentialsFile
from firmware_sim.errors import AdminRefused
from firmware_sim.plan import plan, speaks_http
from tests.servers import free_port
from tests.sim.fakes import FakeServer, Watch, fake_server, problem, running
from tests.sim.test_http import options


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with fake_server() as server:
        yield server


async def until_online(chosen: SimOptions) -> None:
    watch = Watch()
    async with running(chosen, watch):
        await watch.until(lambda picture: picture.states == {"online": chosen.devices})


async def test_devices_are_created_with_profile_tags_and_attributes(server: FakeServer) -> None:
    await until_online(options(server, devices=5, token="", username="admin", password="correct horse"))
    device = server.devices["sim-0001"]
    assert device["profile"] == "pump"
    assert device["name"].startswith("Pump 1, ")
    assert device["tags"] == [device["attributes"]["site"]]
    assert set(device["attributes"]) == {"serial", "site", "lat", "lon"}
    assert len(server.devices) == 5
    assert server.logins == 1


async def test_existing_devices_get_a_further_credential(server: FakeServer) -> None:
    for _ in range(4):
        await until_online(options(server))
    assert len(server.tokens["sim-0001"]) == 2


async def test_the_credentials_file_makes_the_admin_api_unnecessary(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "sim.json"
    await until_online(options(server, devices=2, credentials_file=path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = json.loads(path.read_text())[server.url]
    assert kept["sim-0002"] == {"token": "token-sim-0002-0", "firmware": "1.0.0"}
    await until_online(options(server, devices=2, credentials_file=path, token=""))
    assert len(server.tokens["sim-0001"]) == 1


async def test_installed_firmware_is_kept_for_the_next_run(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "sim.json"
    kept = CredentialsFile(path, server.url)
    kept.keep("sim-0001", firmware="2.0.0")
    kept.save()
    async with running(options(server, credentials_file=path)):
        await server.until(lambda: bool(server.on("twin/reported")))
    assert server.on("twin/reported")[0]["firmware"] == {"version": "2.0.0"}


async def test_a_kept_token_that_is_refused_is_renewed_once(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "sim.json"
    kept = CredentialsFile(path, server.url)
    kept.keep("sim-0001", token="from a server that was wiped")
    kept.save()
    await until_online(options(server, credentials_file=path))
    assert CredentialsFile(path, server.url).token("sim-0001") == "token-sim-0001-0"


def test_a_credentials_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sim.json"
    path.write_text("{}")
    path.chmod(0o644)
    with pytest.raises(BadOptions, match="can be read by others"):
        CredentialsFile(path, "http://127.0.0.1:8080")


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_credentials_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sim.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(BadOptions, match=r"sim\.json is"):
        CredentialsFile(path, "http://127.0.0.1:8080")


@pytest.mark.parametrize(
    ("login", "error", "words"),
    [
        ({"token": ""}, LoginRefused, "give the user name and password, or a token"),
        (
            {"token": "", "username": "admin", "password": "no"},
            LoginRefused,
            "'admin' in: user name or password is wrong",
        ),
        ({"token": "stale"}, LoginRefused, "does not accept the token: the access token is not valid"),
    ],
)
async def test_a_wrong_login_is_said(
    server: FakeServer, login: dict[str, Any], error: type[SimError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await run(options(server, devices=20, **login))


async def test_a_refused_creation_is_said_in_the_servers_words(server: FakeServer) -> None:
    server.answers["POST /api/v1/devices"] = [problem(422, "profile: no such profile")]
    with pytest.raises(AdminRefused, match="refused to create device sim-0001: 422 profile: no such profile"):
        await run(options(server))


async def test_a_busy_admin_api_is_waited_for(server: FakeServer) -> None:
    server.answers["POST /api/v1/devices"] = [problem(429, "slowly", **{"Retry-After": "0"}) for _ in range(3)]
    await until_online(options(server))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("url", "the admin API does not answer at http://127"),
        ("device_http_url", "the device HTTP API does not answer at 127"),
        ("mqtt_url", "the MQTT broker does not answer at 127"),
    ],
)
async def test_a_server_that_is_not_there_is_said(server: FakeServer, where: str, words: str) -> None:
    scheme = "mqtt" if where == "mqtt_url" else "http"
    nobody = {where: f"{scheme}://127.0.0.1:{free_port()}"}
    if scheme == "mqtt":
        nobody["transport"] = "mqtt"
    with pytest.raises(ServerUnreachable, match=words):
        await run(options(server, **nobody))


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": 0},
        {"interval_s": 0},
        {"http_share": 1.5},
        {"url": "127.0.0.1:8080"},
        {"url": "http://h:99999"},
        {"mqtt_url": "http://127.0.0.1:1883"},
        {"prefix": "a/b"},
        {"prefix": "x" * 62},
        {"transport": "coap"},
        {"kinds": ()},
        {"pace": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOptions):
        SimOptions(**wrong)


def test_addresses_follow_the_url() -> None:
    chosen = SimOptions(url="http://gateway.example:8080")
    assert chosen.mqtt_address == ("gateway.example", 1883, False)
    assert chosen.device_http_base == "http://gateway.example:8081"
    assert SimOptions(mqtt_url="mqtts://[::1]").mqtt_address == ("::1", 8883, True)


def test_secrets_do_not_show() -> None:
    assert "geheim" not in repr(SimOptions(password="geheim", token="geheim"))


def test_the_plan_is_the_same_every_time_and_mixes_transports() -> None:
    chosen = SimOptions(devices=400)
    specs = list(plan(chosen))
    assert specs == list(plan(chosen))
    assert len({spec.serial for spec in specs}) > 390
    assert {spec.kind for spec in specs} == set(chosen.kinds)
    assert 50 < sum(speaks_http(chosen, spec.device_id) for spec in specs) < 110
