"""The wanted set on a disk that is full or fails: what was confirmed is kept, and recovering takes no second copy."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.vpn.agent.state.test_store import Clock, fill, names, opened, refuse
from tests.vpn.agents import key
from vpn.agent.state.store import open_store
from vpn.errors import StoreFailed


async def test_keys_end_on_a_full_disk_and_are_remembered_once_there_is_room(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a"))
        size = os.path.getsize(tmp_path / "keys.0.log")  # noqa: PTH202  # a path's own stat would do the same
        with files_no_larger_than(size + 10):
            store.record_ended(100.0)
            store.record_ended(200.0)
        assert store.failure and store.desired.ended_upto == 200.0
        assert await store.recover()
        await store.put(key("b"))
    with opened(tmp_path) as store:
        assert store.desired.ended_upto == 200.0 and names(store) == ["a", "b"]


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As a full disk: the kernel writes up to this size, and then no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_refuses_the_change_and_every_later_one_until_it_recovers(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a"))
        size = os.path.getsize(tmp_path / "keys.0.log")  # noqa: PTH202  # a path's own stat would do the same
        with files_no_larger_than(size + 30):
            for name in ("b", "c"):
                with pytest.raises(StoreFailed, match="free space"):
                    await store.put(key(name))
        with files_no_larger_than(0):
            assert not await store.recover()
            assert not await store.recover()
        with pytest.raises(StoreFailed):
            await store.put(key("b"))
        assert await store.recover() and store.failure == ""
        await store.put(key("b"))
        before = store.desired.digest
    with opened(tmp_path) as store:
        assert store.desired.digest == before and names(store) == ["a", "b"]


def fail_next_sync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The kernel's answer to the next sync, of a disk that cannot be broken here on purpose."""
    sync = os.fdatasync

    def fail(_: int) -> None:
        monkeypatch.setattr(os, "fdatasync", sync)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_what_ends_while_the_store_recovers_leaves_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a"))
        spec = key("b")
        fail_next_sync(monkeypatch, number)
        with pytest.raises(StoreFailed):
            await store.put(spec)
        write, sync = store._write_snapshot, os.fdatasync
        ends = iter((100.0, 200.0))

        def end_a_key() -> None:
            if (end := next(ends, None)) is not None:
                trio.from_thread.run_sync(store.record_ended, end)

        def write_while_a_key_ends(*what: Any) -> None:
            end_a_key()
            write(*what)

        def sync_while_a_key_ends(descriptor: int) -> None:
            end_a_key()
            sync(descriptor)

        if number == errno.EIO:
            monkeypatch.setattr(store, "_write_snapshot", write_while_a_key_ends)
        else:
            monkeypatch.setattr(os, "fdatasync", sync_while_a_key_ends)
        while not await store.recover():
            pass
        await store.put(spec)
    with opened(tmp_path) as store:
        assert names(store) == ["a", "b"] and store.desired.ended_upto == 200.0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_only_an_error_of_the_disk_itself_has_everything_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a"))
        fail_next_sync(monkeypatch, number)
        with pytest.raises(StoreFailed):
            await store.put(key("b"))
        assert await store.recover()
        await store.put(key("c"))
    found = {path.name for path in tmp_path.iterdir()}
    assert found == ({"keys.snapshot", "keys.1.log"} if number == errno.EIO else {"keys.0.log"})
    with opened(tmp_path) as store:
        assert names(store) == ["a", "b", "c"]


async def test_ends_of_a_long_time_without_room_are_one_line_when_there_is_room(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a"))
        size = os.path.getsize(tmp_path / "keys.0.log")  # noqa: PTH202  # a path's own stat would do the same
        with files_no_larger_than(size + 10):
            for upto in range(1000):
                store.record_ended(float(upto))
            assert not await store.recover()
            store.record_ended(500.0, too_far=True)
        assert await store.recover()
        await store.put(key("b"))
    assert (tmp_path / "keys.0.log").read_bytes().count(b"\n") == 3
    with opened(tmp_path) as store:
        assert store.desired.ended_upto == 500.0 and names(store) == ["a", "b"]


async def test_without_room_for_a_snapshot_changes_are_taken_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        await store.put(key("kept"))
        for number in range(30):
            await store.remove(f"gone-{number}", 1)
        size = os.path.getsize(tmp_path / "keys.0.log")  # noqa: PTH202  # a path's own stat would do the same
        monkeypatch.setattr("vpn.agent.state.store._COMPACT_AFTER", 3)
        with files_no_larger_than(size // 5):  # room for some six lines a file, and a snapshot has more than thirty
            with pytest.raises(StoreFailed, match="no room for a snapshot"):
                await store.compact()
            for number in range(12):
                await store.remove(f"late-{number}", 1)
            assert store.failure == ""
        logs = {path.name for path in tmp_path.iterdir()}
        assert logs >= {"keys.0.log", "keys.1.log", "keys.2.log"} and all(name.endswith(".log") for name in logs)
        before = store.desired.sequence
    with opened(tmp_path) as store:
        assert store.desired.sequence == before and names(store) == ["kept"]
        await store.compact()
        assert len(list(tmp_path.iterdir())) == 2, "the snapshot and its log"


async def test_many_changes_in_writing_when_the_disk_fails_leave_readable_files(
    tmp_path: Path,
) -> None:
    specs = [key(f"k{number:04}") for number in range(600)]
    with opened(tmp_path) as store:

        async def fail_once() -> None:
            size = os.path.getsize(tmp_path / "keys.0.log")  # noqa: PTH202  # a path's own stat would do the same
            assert size, "the first of the many are in the file"
            with files_no_larger_than(size + 10), pytest.raises(StoreFailed):
                await store.put(key("other"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_once)
            with pytest.raises(StoreFailed):
                await store.put_all(specs, refuse)
        again, remark = open_store(tmp_path, Clock())  # as after a kill
        again.close()
        assert "unfinished" in remark and len(again.desired) >= 255
        assert await store.recover()
        await store.put_all(specs, refuse)
    with opened(tmp_path) as store:
        assert len(store.desired) == 600


@pytest.mark.parametrize("room", [0, 50, 300])
async def test_a_stop_while_the_disk_is_full_and_recovery_fails_loses_nothing(tmp_path: Path, room: int) -> None:
    with opened(tmp_path) as store:
        for name in ("a", "b", "c"):
            await store.put(key(name))
        before = store.desired.digest
        with files_no_larger_than(room):
            with pytest.raises(StoreFailed):
                await store.put(key("d"))
            for _ in range(3):
                assert not await store.recover()
    store, _ = open_store(tmp_path, Clock())
    assert store.desired.digest == before
    store.close()


async def test_a_full_disk_refuses_the_change_and_a_restart_drops_what_was_not_finished(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a"))
        size = os.path.getsize(tmp_path / "keys.0.log")  # noqa: PTH202  # a path's own stat would do the same
        with files_no_larger_than(size + 30), pytest.raises(StoreFailed, match="free space"):
            await store.put(key("b"))
        assert names(store) == ["a"]
        with pytest.raises(StoreFailed):
            await store.put(key("c"))
        with pytest.raises(StoreFailed):
            await store.put(store.desired.wanted("a") or key("a"))
    store, remark = open_store(tmp_path, Clock())
    assert "unfinished change of 30 bytes" in remark
    assert names(store) == ["a"]
    assert await store.put(key("b"))
    store.close()
    with opened(tmp_path) as store:
        assert names(store) == ["a", "b"]


async def test_a_full_disk_during_a_snapshot_loses_nothing(tmp_path: Path) -> None:
    before = await fill(tmp_path)
    with opened(tmp_path) as store, files_no_larger_than(50), pytest.raises(StoreFailed):
        await store.compact()
    with opened(tmp_path) as store:
        assert store.desired.digest == before
