"""The wanted set on disk: nothing confirmed is lost, and damage is refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vpn.agents import key
from vpn.agent.state.desired import Conflict
from vpn.agent.state.store import REMOVALS_KEPT, Store, open_store
from vpn.errors import StoreCorrupt, StoreUnreadable

NEWLINE = b"\n"


class Clock:
    """Unix seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def opened(directory: Path, clock: Clock | None = None) -> Iterator[Store]:
    """The store, with nothing to remark about it."""
    store, remark = open_store(directory, clock or Clock())
    assert remark == ""
    try:
        yield store
    finally:
        store.close()


def names(store: Store) -> list[str]:
    """The wanted keys."""
    return [spec.key_id for spec in store.desired.specs()]


async def fill(directory: Path) -> str:
    """Three wanted keys, one removed and one forgotten; the digest."""
    with opened(directory) as store:
        for name in ("a", "b", "c", "gone", "dropped"):
            await store.put(key(name))
        await store.remove("gone", 1)
        await store.forget(["dropped"])
        return store.desired.digest


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    before = await fill(tmp_path)
    with opened(tmp_path) as store:
        assert names(store) == ["a", "b", "c"]
        assert store.desired.digest == before
        assert store.desired.sequence == 7
        with pytest.raises(Conflict):
            await store.put(key("gone"))
        assert await store.put(key("dropped"))


async def test_a_confirmed_change_is_in_the_file_before_the_store_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        spec = key("a")
        await store.put(spec)
        assert str(spec.uuid) in (tmp_path / "keys.0.log").read_text()
        with opened(tmp_path) as second:  # as after a SIGKILL
            assert second.desired.wanted("a") == spec


async def test_a_put_repeated_writes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        spec = key("a")
        assert await store.put(spec)
        before = (tmp_path / "keys.0.log").read_bytes()
        assert not await store.put(spec)
        assert (tmp_path / "keys.0.log").read_bytes() == before


async def test_changes_made_at_once_are_all_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(store.put, key(f"k{number:02}"))
    with opened(tmp_path) as store:
        assert names(store) == [f"k{number:02}" for number in range(50)]


async def test_many_keys_at_once_are_kept_and_refusals_are_handed_back(tmp_path: Path) -> None:
    shared = uuid4()
    specs = [key(f"k{number:04}") for number in range(600)] + [key("x", uuid=shared), key("y", uuid=shared)]
    refused: list[str] = []
    with opened(tmp_path) as store:
        changed = await store.put_all(specs, lambda spec, _: refused.append(spec.key_id))
        assert (len(changed), refused) == (601, ["y"])
        assert await store.put_all(specs[:600], lambda spec, _: refused.append(spec.key_id)) == []
        before = store.desired.digest
    with opened(tmp_path) as store:
        assert store.desired.digest == before
        assert len(store.desired) == 601


async def test_a_snapshot_holds_everything_and_replaces_the_log(tmp_path: Path) -> None:
    before = await fill(tmp_path)
    with opened(tmp_path) as store:
        await store.compact()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.1.log", "keys.snapshot"]
        assert (tmp_path / "keys.1.log").read_bytes() == b""
        await store.put(key("d"))
        after, sequence = store.desired.digest, store.desired.sequence
    assert after != before
    with opened(tmp_path) as store:
        assert names(store) == ["a", "b", "c", "d"]
        assert (store.desired.digest, store.desired.sequence) == (after, sequence)
        with pytest.raises(Conflict):
            await store.put(key("gone"))


async def test_the_sequence_does_not_go_back_when_the_last_change_left_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a", generation=9))
        await store.forget(["a"])
        await store.compact()
    with opened(tmp_path) as store:
        assert (store.desired.sequence, store.desired.last_generation) == (2, 9)


async def test_a_log_of_many_changes_is_compacted_by_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ids = UUID(int=1 << 100), UUID(int=1 << 101)
        for first in range(1, 4100, 1000):
            # the same key again and again: its generations are what fills the log
            await store.put_all(
                [key("a", uuid=ids[number % 2], generation=number) for number in range(first, first + 1000)], refuse
            )
        assert (tmp_path / "keys.snapshot").exists()
        assert not (tmp_path / "keys.0.log").exists()
    with opened(tmp_path) as store:
        assert store.desired.last_generation == 5000


def refuse(*_: object) -> None:
    raise AssertionError("nothing is to be refused here")


async def test_old_removals_are_dropped_with_a_snapshot_and_young_ones_are_not(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as store:
        await store.remove("old", 1)
        clock.now += REMOVALS_KEPT / 2
        await store.remove("young", 1)
        clock.now += REMOVALS_KEPT / 2 + 1
        await store.compact()
    with opened(tmp_path, clock) as store:
        assert [entry.key_id for entry in store.desired.entries()] == ["young"]


async def test_a_stop_in_the_middle_of_a_snapshot_loses_nothing(tmp_path: Path) -> None:
    before = await fill(tmp_path)
    log = (tmp_path / "keys.0.log").read_bytes()
    with opened(tmp_path) as store:
        await store.compact()
        snapshot = (tmp_path / "keys.snapshot").read_bytes()
    # stopped after the new log was opened, before the snapshot was in its place
    (tmp_path / "keys.snapshot").unlink()
    (tmp_path / "keys.snapshot.new").write_bytes(snapshot[:40])
    (tmp_path / "keys.0.log").write_bytes(log)
    with opened(tmp_path) as store:
        assert store.desired.digest == before
    # stopped after the snapshot was in its place, before the old log was deleted
    (tmp_path / "keys.snapshot").write_bytes(snapshot)
    with opened(tmp_path) as store:
        assert store.desired.digest == before


async def test_a_torn_last_line_is_dropped_and_everything_before_it_kept(tmp_path: Path) -> None:
    await fill(tmp_path)
    path = tmp_path / "keys.0.log"
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for cut in range(1, len(last) + 1):
        path.write_bytes(whole[:-cut])
        store, remark = open_store(tmp_path, Clock())
        store.close()
        assert names(store) == ["a", "b", "c", "dropped"]
        assert ("unfinished change" in remark and "keys.0.log" in remark) is (cut < len(last))
        assert path.read_bytes() == whole[: -len(last)]


async def test_any_flipped_bit_is_refused_naming_file_and_line(tmp_path: Path) -> None:
    await fill(tmp_path)
    with opened(tmp_path) as store:
        await store.compact()
        await store.put(key("d"))
        await store.remove("a", 1)

    @settings(deadline=None)  # a busy machine is not a failure
    @given(st.sampled_from(["keys.snapshot", "keys.1.log"]), st.data())
    def flip(name: str, data: st.DataObject) -> None:
        path = tmp_path / name
        whole = path.read_bytes()
        at = data.draw(st.one_of(st.just(len(whole) - 1), st.integers(0, len(whole) - 1)))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(damaged)
        with pytest.raises(StoreCorrupt) as caught:
            open_store(tmp_path, Clock())
        assert f"{path} is damaged at line {whole[:at].count(NEWLINE) + 1} " in str(caught.value)
        assert path.read_bytes() == damaged, "what is damaged is left for its owner to look at"
        path.write_bytes(whole)

    flip()


@pytest.mark.parametrize("is_compacted", [False, True], ids=["log alone", "snapshot and log"])
@pytest.mark.parametrize("copies", [0, 2], ids=["missing", "there twice"])
async def test_a_whole_line_that_is_missing_or_there_twice_is_refused(
    tmp_path: Path, copies: int, is_compacted: bool
) -> None:
    """Of the last line alone nothing tells that it was there."""
    await fill(tmp_path)
    path = tmp_path / "keys.0.log"
    with opened(tmp_path) as store:
        if is_compacted:
            await store.compact()
            path = tmp_path / "keys.1.log"
        await store.put(key("d"))
        await store.remove("a", 1)
        store.record_ended(1_700_000_000.0)
        await store.put(key("e"))
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(len(lines) - 1 + (copies > 0)):
        path.write_bytes(b"".join(line * (copies if at == number else 1) for at, line in enumerate(lines)))
        with pytest.raises(StoreCorrupt, match=rf"line {number + 1 + (copies > 0)} .*change \d+ follows change \d+"):
            open_store(tmp_path, Clock())
    path.write_bytes(b"".join(lines))
    with opened(tmp_path) as store:
        assert names(store) == ["b", "c", "d", "e"]


@pytest.mark.parametrize("is_compacted", [False, True], ids=["log alone", "snapshot"])
async def test_what_has_ended_is_remembered_and_only_ever_grows(tmp_path: Path, is_compacted: bool) -> None:
    with opened(tmp_path) as store:
        await store.put(key("a"))
        for upto in (100.5, 50.0, 100.5):
            store.record_ended(upto)
        assert store.desired.sequence == 2
        if is_compacted:
            await store.compact()
    with opened(tmp_path) as store:
        assert (store.desired.ended_upto, store.desired.sequence) == (100.5, 2)
        await store.put(key("b"))


@pytest.mark.parametrize("name", ["keys.snapshot", "keys.1.log"])
async def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    await fill(tmp_path)
    with opened(tmp_path) as store:
        await store.compact()
        await store.put(key("d"))
    (tmp_path / name).unlink()
    with pytest.raises(StoreCorrupt, match=r"keys\.\d\.log.*missing"):
        open_store(tmp_path, Clock())


async def test_a_snapshot_without_its_last_line_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path)
    with opened(tmp_path) as store:
        await store.compact()
    path = tmp_path / "keys.snapshot"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(StoreCorrupt, match="cut short"):
        open_store(tmp_path, Clock())


def test_a_directory_in_place_of_the_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.0.log").mkdir()
    with pytest.raises(StoreUnreadable, match=r"keys\.0\.log"):
        open_store(tmp_path, Clock())
