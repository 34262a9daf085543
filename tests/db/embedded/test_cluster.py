"""The embedded cluster: made once, found again, never half made, refused with a reason."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import trio
import trio.testing
import trio_asyncio

from db.embedded import Cluster, ClusterError, EmbeddedSettings, embedded_dsn, layout_of, prepare
from runtime.child_process import ChildProcess
from tests.run_queue import at_most


@pytest.fixture
def home() -> Iterator[Path]:
    """A data directory that a service user can reach (pytest's own are closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="atlas-test-"))
    directory.chmod(0o755)
    yield directory / "data"
    shutil.rmtree(directory)


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[ChildProcess]:
    server = cluster.start()
    try:
        with trio.fail_after(20):
            await cluster.until_ready(server)
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await server.stop(signal.SIGINT, grace=5)
            await server.close()


async def ask(settings: EmbeddedSettings, query: str) -> object:
    async with trio_asyncio.open_loop():

        async def fetch() -> object:
            connection = await asyncpg.connect(embedded_dsn(settings))
            try:
                return await connection.fetchval(query)
            finally:
                await connection.close()

        return await trio_asyncio.aio_as_trio(fetch)()


async def test_a_prepared_cluster_serves_the_database_named_in_its_dsn(home: Path) -> None:
    settings = EmbeddedSettings(data_dir=home)
    async with running(await prepare(settings)):
        assert await ask(settings, "SELECT current_database()") == "atlas"


async def test_what_was_written_is_there_after_a_restart(home: Path) -> None:
    settings = EmbeddedSettings(data_dir=home)
    async with running(await prepare(settings)):
        await ask(settings, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with running(await prepare(settings)):
        assert await ask(settings, "SELECT answer FROM kept") == 42


async def test_a_cluster_that_was_not_finished_is_made_anew(home: Path) -> None:
    settings = EmbeddedSettings(data_dir=home)
    half_made = layout_of(settings).home / "postgres.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    async with running(await prepare(settings)):
        assert await ask(settings, "SELECT 1") == 1
    assert not half_made.exists()


async def test_a_start_waits_for_the_predecessor_that_is_still_shutting_down(home: Path) -> None:
    settings = EmbeddedSettings(data_dir=home)
    cluster = await prepare(settings)
    async with running(cluster) as server, trio.open_nursery() as nursery:
        waited = trio.Event()

        async def wait() -> None:
            await cluster.wait_for_predecessor()
            assert server.returncode is not None
            waited.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not waited.is_set()
        server.send_signal(signal.SIGINT)
        with trio.fail_after(10):
            await waited.wait()


async def test_a_pid_that_belongs_to_somebody_else_is_no_predecessor(home: Path) -> None:
    cluster = await prepare(EmbeddedSettings(data_dir=home))
    (cluster.layout.data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    with at_most(1):
        await cluster.wait_for_predecessor()


async def test_data_of_another_major_version_is_refused_and_left_alone(home: Path) -> None:
    settings = EmbeddedSettings(data_dir=home)
    cluster = await prepare(settings)
    (cluster.layout.data / "PG_VERSION").write_text("14\n")
    with pytest.raises(
        ClusterError, match=r"made by PostgreSQL 14.*embedded\.binaries.*Nothing was changed"
    ) as refused:
        await prepare(settings)
    assert refused.value.exit_code == os.EX_CONFIG


@pytest.mark.root
async def test_a_data_directory_of_another_owner_is_refused(home: Path) -> None:
    settings = EmbeddedSettings(data_dir=home)
    cluster = await prepare(settings)
    os.chown(cluster.layout.data, 65534, 65534)
    with pytest.raises(ClusterError, match=r"belongs to user 65534.*chown.*embedded\.data_dir") as refused:
        await prepare(settings)
    assert refused.value.exit_code == os.EX_NOPERM


async def test_a_file_in_the_place_of_the_data_directory_is_refused(home: Path) -> None:
    home.write_text("not a directory")
    with pytest.raises(ClusterError, match=r"not a directory.*embedded\.data_dir") as refused:
        await prepare(EmbeddedSettings(data_dir=home))
    assert refused.value.exit_code == os.EX_CONFIG


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("/proc/nowhere", os.EX_CONFIG),
        ("/etc/passwd/below/a/file", os.EX_CONFIG),
        ("/tmp/" + "x" * 300, os.EX_CONFIG),
        ("/dev/null", os.EX_CONFIG),
    ],
)
async def test_a_place_that_can_hold_no_data_is_named_with_the_setting(place: str, code: int) -> None:
    settings = EmbeddedSettings(data_dir=Path(place))
    assert embedded_dsn(settings), "a command can always tell where it would be"
    with pytest.raises(ClusterError, match=r"embedded\.data_dir") as refused:
        await prepare(settings)
    assert place[:100] in str(refused.value)
    assert refused.value.exit_code == code


async def test_a_disk_without_room_is_named_and_may_pass(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(home))

    monkeypatch.setattr("db.embedded.cluster.find_binaries", no_room)
    with pytest.raises(
        ClusterError, match=rf"{home} cannot be used: No space left on device.*embedded\.data_dir"
    ) as refused:
        await prepare(EmbeddedSettings(data_dir=home))
    assert refused.value.exit_code == os.EX_UNAVAILABLE


async def test_binaries_that_are_too_old_are_refused_with_their_version(home: Path) -> None:
    old = home.parent / "old" / "postgres"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.12'\n")
    old.chmod(0o755)
    with pytest.raises(
        ClusterError, match=r"PostgreSQL 14\.12 in .* needs 15 or newer; set embedded\.binaries"
    ) as refused:
        await prepare(EmbeddedSettings(data_dir=home, binaries=old.parent))
    assert refused.value.exit_code == os.EX_CONFIG
    assert not (home / "postgres").exists()


async def test_binaries_that_are_not_there_are_named(home: Path) -> None:
    with pytest.raises(ClusterError, match=r"embedded\.binaries = .*no program `postgres`"):
        await prepare(EmbeddedSettings(data_dir=home, binaries=home))


@pytest.mark.root
async def test_binaries_out_of_the_service_users_reach_are_copied_and_nothing_is_opened(home: Path) -> None:
    settings = EmbeddedSettings(data_dir=home)
    installed = (await prepare(settings)).binaries.directory
    closed = home.parent / "closed"
    shutil.copytree(installed.parent.parent, closed / "package", symlinks=True)
    libraries = installed.parent.parent.with_name(f"{installed.parent.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, closed / "package.libs")
    closed.chmod(0o700)
    hidden = with_binaries(settings, closed / "package" / installed.parent.name / "bin")
    cluster = await prepare(hidden)
    assert cluster.binaries.directory.is_relative_to(cluster.layout.binaries_copy)
    assert closed.stat().st_mode & 0o777 == 0o700
    async with running(cluster):
        assert await ask(hidden, "SELECT 1") == 1


def with_binaries(settings: EmbeddedSettings, directory: Path) -> EmbeddedSettings:
    return EmbeddedSettings(data_dir=settings.data_dir, binaries=directory)
