"""What keeps a fleet from starting: each a SetupError of one line, and no harm to what is there."""

from pathlib import Path

import pytest

from fleet.errors import SetupError
from tests.fleet.conftest import running


async def test_a_second_fleet_on_the_same_directory_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, "") as rig:
        await rig.device()
        rig.fleet.presence.connected("pump-7", "mqtt", "127.0.0.1")
        await rig.fleet.presence.flush()
        upload = tmp_path / "artifacts" / ".upload-01M7XSXV2S6J4QQQHXCH5KB4C1"
        upload.touch()
        with pytest.raises(SetupError, match="in use by another process"):
            async with running(tmp_path, ""):
                pass
        assert (await rig.fleet.devices.get("pump-7")).status == "online"
        assert upload.exists()


async def test_a_directory_is_free_again_after_a_stop(tmp_path: Path) -> None:
    for _ in range(2):
        async with running(tmp_path, ""):
            pass


@pytest.mark.timeout(20)
@pytest.mark.parametrize("keep", [0, 4096], ids=["no database", "damaged pages"])
async def test_a_damaged_database_is_named_and_left_alone(tmp_path: Path, keep: int) -> None:
    async with running(tmp_path, ""):
        pass
    file = tmp_path / "fleet.db"
    damaged = file.read_bytes()[:keep] + b"\xaa" * 20_000
    file.write_bytes(damaged)
    with pytest.raises(SetupError, match=r"fleet\.db is damaged"):
        async with running(tmp_path, ""):
            pass
    assert file.read_bytes() == damaged


async def test_a_database_that_is_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").mkdir()
    with pytest.raises(SetupError, match=r"fleet\.db"):
        async with running(tmp_path, ""):
            pass


async def test_an_artifact_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "artifacts").touch()
    with pytest.raises(SetupError, match="artifacts"):
        async with running(tmp_path, ""):
            pass


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\x00\n" * 40])
async def test_a_secret_that_is_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "jwt.key"
    key.write_bytes(content)
    key.chmod(0o600)
    with pytest.raises(SetupError, match=r"jwt\.key holds no usable secret"):
        async with running(tmp_path, ""):
            pass


async def test_a_fleet_whose_database_is_gone_still_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, "") as rig:
        await rig.device()
        rig.fleet.presence.connected("pump-7", "mqtt", "127.0.0.1")
        await rig.fleet.database.close()
    assert "stopping:" in caplog.text
    async with running(tmp_path, ""):
        pass
