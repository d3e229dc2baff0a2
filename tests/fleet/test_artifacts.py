"""Artifacts: uploads, and the files on disk."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound
from tests.fleet.conftest import ANNA, Rig, running

CONTENT = b"firmware" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


async def test_an_upload_is_stored_whole_and_private(rig: Rig) -> None:
    artifact_id = await rig.artifact(sha256=DIGEST.upper(), description="First\nrelease")
    artifact = await rig.fleet.artifacts.get(artifact_id)
    assert (artifact.version, artifact.size, artifact.sha256, artifact.created_by) == ("1.1.0", 8000, DIGEST, "anna")
    assert artifact.description == "First\nrelease"
    path = await rig.fleet.artifacts.file(artifact_id)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await rig.fleet.artifacts.list()).items == [artifact]


async def test_a_wrong_digest_is_refused_and_nothing_is_left(lite: Rig) -> None:
    with pytest.raises(Invalid, match="sha256"):
        await lite.artifact(sha256="0" * 64)
    with pytest.raises(Invalid, match="sha256"):
        await lite.artifact(sha256="abc")
    _nothing_is_left(lite)


async def test_an_upload_that_breaks_off_leaves_nothing(lite: Rig) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await lite.fleet.artifacts.create(ANNA, version="1", name="x", chunks=chunks())
    with pytest.raises(Invalid, match="empty"):
        await lite.artifact(content=b"")
    _nothing_is_left(lite)


async def test_one_that_is_too_large_is_refused(tmp_path: Path, sqlite_url: str) -> None:
    async with running(tmp_path, sqlite_url, artifact_limit_bytes=5000) as rig:
        with pytest.raises(Invalid, match="larger"):
            await rig.artifact()
        _nothing_is_left(rig)


async def test_the_same_content_is_there_once_a_version(rig: Rig) -> None:
    await rig.artifact()
    with pytest.raises(AlreadyExists):
        await rig.artifact()
    await rig.artifact("1.2.0")
    await rig.artifact("1.1.0", b"for other hardware")
    assert (await rig.fleet.artifacts.list()).total == 3
    assert len(list((rig.fleet.options.data_dir / "artifacts").iterdir())) == 3


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "CON", "x" * 255])
async def test_names_never_touch_the_disk(lite: Rig, name: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    artifact = await lite.fleet.artifacts.create(ANNA, version="../1", name=name, chunks=chunks())
    assert [file.name for file in (lite.fleet.options.data_dir / "artifacts").iterdir()] == [artifact.id]


async def test_a_changed_byte_on_disk_is_found_before_it_is_served(lite: Rig) -> None:
    artifact_id = await lite.artifact()
    path = await lite.fleet.artifacts.file(artifact_id)
    path.write_bytes(CONTENT[:-1] + b"X")
    with pytest.raises(Conflict, match="damaged"):
        await lite.fleet.artifacts.file(artifact_id)
    path.unlink()
    with pytest.raises(Conflict, match="damaged"):
        await lite.fleet.artifacts.file(artifact_id)


async def test_left_overs_of_a_crash_go_at_the_next_start(tmp_path: Path, sqlite_url: str) -> None:
    async with running(tmp_path, sqlite_url) as rig:
        artifact_id = await rig.artifact()
        (tmp_path / "artifacts" / ".upload-1").write_bytes(b"half")
    async with running(tmp_path, sqlite_url) as rig:
        assert [file.name for file in (tmp_path / "artifacts").iterdir()] == [artifact_id]


async def test_one_that_is_in_use_cannot_be_deleted_and_a_record_of_it_stays(rig: Rig) -> None:
    await rig.device()
    used, unused = await rig.artifact(), await rig.artifact("2")
    campaign = await rig.fleet.campaigns.create(ANNA, name="c", artifact_id=used, devices=["pump-7"])
    with pytest.raises(Conflict, match="unfinished"):
        await rig.fleet.artifacts.delete(ANNA, used)
    await rig.fleet.artifacts.delete(ANNA, unused)
    with pytest.raises(NotFound):
        await rig.fleet.artifacts.delete(ANNA, unused)
    assert [file.name for file in (rig.fleet.options.data_dir / "artifacts").iterdir()] == [used]
    await rig.fleet.campaigns.start(ANNA, campaign.id)
    await rig.later(8 * 86_400)
    assert (await rig.fleet.campaigns.get(campaign.id)).status == "finished"
    await rig.fleet.artifacts.delete(ANNA, used)
    _nothing_is_left(rig)
    assert (await rig.fleet.campaigns.get(campaign.id)).artifact.version == "1.1.0"
    assert (await rig.fleet.artifacts.list()).total == 0
    with pytest.raises(NotFound):
        await rig.fleet.artifacts.get(used)
    with pytest.raises(NotFound):
        await rig.fleet.campaigns.create(ANNA, name="c", artifact_id=used, devices=["pump-7"])
    with pytest.raises(Conflict, match="deleted"):
        await rig.fleet.campaigns.retry(ANNA, campaign.id)
    await rig.artifact()  # the same again


def _nothing_is_left(rig: Rig) -> None:
    assert list((rig.fleet.options.data_dir / "artifacts").iterdir()) == []
