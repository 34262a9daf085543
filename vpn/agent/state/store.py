"""The wanted set on disk: a snapshot and the changes since, each line with its checksum.

`keys.snapshot` holds everything as of an epoch, `keys.<epoch>.log` the changes after it. A change counts once its line
is synced to disk. A torn last line is an unfinished change and is dropped; any other damage is refused by name, a line that
is missing or there twice as well: changes are numbered without a gap.

A disk without room costs no second copy of all this: the log is cut back to what is synced, and the few changes that are known
here but not there are appended once they fit. Only after an error of the disk itself is everything written anew.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

import trio

from runtime import get_logger
from vpn.agent.config.metrics import CHANGES
from vpn.agent.state import files
from vpn.agent.state.desired import Change, Conflict, DesiredSet, Ended, Entry, Forgotten, UuidTaken
from vpn.agent.state.records import Damaged, change_from_json, change_to_json, decode_line, encode_line
from vpn.errors import StoreCorrupt, StoreFailed, StoreUnreadable
from vpn.protocol import KeySpec, Removal

log = get_logger(__name__)

REMOVALS_KEPT: Final = 30 * 86_400.0
"Seconds for which a removal is remembered, and so a late put of that generation refused."

_ROOM: Final = 16 * 1024
"Bytes that must be free before changes are taken again: with less, the condition would come and go with each change."

_COMPACT_AFTER: Final = 4096
_AT_ONCE: Final = 256
_LOG: Final = re.compile(r"keys\.(\d+)\.log")


class Store:
    """The wanted set, durable. Made by `open_store`; one per data directory.

    Changing methods return once the change is on disk. They raise StoreFailed if that cannot be, and from then on every
    change is refused until `recover` succeeds. A change that was refused so may be known nevertheless: repeating it
    settles it. A snapshot that finds no room refuses no change: the logs are kept, and it is tried again later. `clock` gives
    Unix seconds. `on_change` is called with the id of every key that changed, as soon as the change is known: also if the
    request that made it is cancelled before it is on disk.
    """

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self.desired = DesiredSet()
        self.on_change: Callable[[str], None] = lambda _: None
        self._directory = directory
        self._clock = clock
        self._epoch = 0
        self._descriptor = -1
        self._lines = 0
        # Lines of changes that are known here, those of them that are in the file, and those that are synced.
        self._known = 0
        self._written = 0
        self._synced = 0
        self._synced_size = 0  # bytes of the current log that are synced
        self._unsynced: deque[bytes] = deque()  # the lines that are known and not synced, in order
        self._last_is_end = False  # whether the newest of them is an Ended that is in no file
        self._sync_lock = trio.Lock()
        self._compacting = False
        self._recovering = False
        self._failure = ""
        self._no_room = False

    async def put(self, spec: KeySpec) -> bool:
        """Want this key. True if that changed anything. Raises Conflict, UuidTaken or StoreFailed."""
        entry = self.desired.decide_put(spec, self._clock())
        return await self._change([] if entry is None else [entry])

    async def remove(self, key_id: str, generation: int) -> bool:
        """Do not want this key. True if that changed anything. Raises Conflict or StoreFailed."""
        entry = self.desired.decide_remove(key_id, generation, self._clock())
        return await self._change([] if entry is None else [entry])

    async def forget(self, key_ids: Sequence[str]) -> None:
        """Drop keys without remembering a removal. Raises StoreFailed."""
        first = self.desired.sequence + 1
        await self._change([Forgotten(key_id, first + number) for number, key_id in enumerate(key_ids)])

    def record_ended(self, upto: float, *, too_far: bool = False) -> None:
        """Remember that keys whose time was over at `upto` (Unix seconds) have been ended; with `too_far`, that none after it
        have: the clock had been wrong. Survives a kill at once and a power failure with the next change; never fails, because
        customers' time does not wait for a disk."""
        if upto <= self.desired.ended_upto and not too_far:
            return
        if self._last_is_end and self._failure and not self._recovering:
            # the one before is in no file yet: keys may end for days before there is room, and shall not fill memory
            change = Ended(upto, self.desired.sequence)
            self._unsynced[-1] = encode_line(change_to_json(change))
            self._apply(change)
            return
        change = Ended(upto, self.desired.sequence + 1)
        line = encode_line(change_to_json(change))
        try:
            self._append([line])
        except StoreFailed:
            self._owe([line])
            self._last_is_end = True
        self._apply(change)

    async def put_all(
        self, specs: Sequence[KeySpec], refused: Callable[[KeySpec | Removal, Exception], None]
    ) -> list[str]:
        """Want all these keys with one wait for the disk; returns the ids of those that changed. Those that cannot be are
        handed to `refused`. Raises StoreFailed."""
        return await self.change_all(specs, refused)

    async def change_all(
        self, changes: Sequence[KeySpec | Removal], refused: Callable[[KeySpec | Removal, Exception], None]
    ) -> list[str]:
        """Make all these changes, in order, with one wait for the disk; returns the ids of keys that changed. Those that
        cannot be are handed to `refused` (Conflict, UuidTaken). Raises StoreFailed."""
        changed: list[str] = []
        lines: list[bytes] = []
        self._check_usable()
        for number, change in enumerate(changes, start=1):
            if number % _AT_ONCE == 0:
                # in the file before anybody else gets a turn: the order there is the order of changes
                self._append_known(lines)
                lines.clear()
                await trio.lowlevel.checkpoint()
            try:
                if isinstance(change, KeySpec):
                    entry = self.desired.decide_put(change, self._clock())
                else:
                    entry = self.desired.decide_remove(change.key_id, change.generation, self._clock())
            except (Conflict, UuidTaken) as error:
                refused(change, error)
                continue
            if entry is not None:
                lines.append(encode_line(change_to_json(entry)))
                self._apply(entry)
                changed.append(change.key_id)
        self._append_known(lines)
        await self._durable()
        return changed

    async def compact(self) -> None:
        """Write a new snapshot and start a new log. Old removals are dropped. Raises StoreFailed; if there was no room for the
        snapshot, changes are still taken."""
        if self._compacting:
            return
        self._compacting = True
        old = self._descriptor
        try:
            os.fdatasync(old)
        except OSError as error:
            self._compacting = False
            self._fail(error)
        try:
            self._mark_synced(self._written)
            self._open_log(self._epoch + 1)
            os.close(old)
            await self._snapshot()
        except OSError as error:
            if not _is_no_room(error):
                self._fail(error)
            self._lines = 0  # as many again before the next try
            # the new log follows the old ones, and together they say all
            raise StoreFailed(
                f"no room for a snapshot in {self._directory}: {error.strerror}; changes are taken while their log has room. "
                "Free space there, about as much as all keys.* have"
            ) from error
        finally:
            self._compacting = False

    @property
    def failure(self) -> str:
        """Why changes are refused; empty while they are not."""
        return self._failure

    async def recover(self) -> bool:
        """After a failure, make the files agree with what is known. True if changes are taken again.

        Without room the log is cut back to what is synced, and what is known beyond that is appended. After any other error
        everything is written to new files: what a failed write or sync left of the old ones is not to be relied on.
        """
        if not self._failure or self._compacting or self._recovering:
            return not self._failure
        self._recovering = True
        known = self._known
        try:
            async with self._sync_lock:
                await (self._append_anew() if self._no_room else self._write_all_anew())
        except OSError as error:
            self._no_room = self._no_room and _is_no_room(error)
            return False
        finally:
            self._recovering = False
        if self._known != known:
            return False  # something came to be known meanwhile that is in no file
        self._failure = ""
        return True

    async def _append_anew(self) -> None:
        """Write again what is known and not synced, behind what is: a failed sync may have dropped it. Raises OSError."""
        known, data = self._known, b"".join(self._unsynced)
        os.ftruncate(self._descriptor, self._synced_size)
        # a line without an end, which a start after a kill drops, proves that there is room for more than this
        _write(self._descriptor, data + bytes(_ROOM))
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(os.fdatasync, self._descriptor)
        os.ftruncate(self._descriptor, self._synced_size + len(data))
        self._lines += known - self._written
        self._written = known
        self._mark_synced(known)

    async def _write_all_anew(self) -> None:
        """Write a snapshot and begin a new log. Raises OSError."""
        os.ftruncate(self._descriptor, self._synced_size)
        if self._synced_size:
            old = self._descriptor
            self._open_log(self._epoch + 1)
            os.close(old)
        self._compacting = True
        try:
            known = self._known
            await self._snapshot()
        finally:
            self._compacting = False
        # they are in the snapshot, not in the log
        for _ in range(known - self._synced):
            self._unsynced.popleft()
        self._written = self._synced = known

    def close(self) -> None:
        """Close the files. Everything that was confirmed is on disk already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _change(self, changes: Sequence[Change]) -> bool:
        self._check_usable()
        self._append([encode_line(change_to_json(change)) for change in changes])
        for change in changes:
            self._apply(change)
        # also when nothing changed: an equal, earlier change may still be on its way to the disk
        await self._durable()
        return bool(changes)

    def _apply(self, change: Change) -> None:
        self.desired.apply(change)
        if isinstance(change, Ended):
            return
        self.on_change(change.key_id)
        if isinstance(change, Forgotten):
            CHANGES.labels("forget").inc()
        else:
            CHANGES.labels("remove" if change.spec is None else "put").inc()

    def _append(self, lines: Sequence[bytes]) -> None:
        self._check_usable()  # behind what is left of a failed write, nothing could be read back
        try:
            _write(self._descriptor, b"".join(lines))
        except OSError as error:
            self._fail(error)
        self._owe(lines)
        self._written += len(lines)
        self._lines += len(lines)

    def _append_known(self, lines: Sequence[bytes]) -> None:
        """Append lines of changes that are applied already: if that fails, they are to be appended later."""
        try:
            self._append(lines)
        except StoreFailed:
            self._owe(lines)
            raise

    def _owe(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._unsynced += lines
            self._known += len(lines)
            self._last_is_end = False

    def _mark_synced(self, upto: int) -> None:
        """The lines up to number `upto` are synced."""
        for _ in range(upto - self._synced):
            self._synced_size += len(self._unsynced.popleft())
        self._synced = max(self._synced, upto)
        self._last_is_end = self._last_is_end and bool(self._unsynced)

    async def _durable(self) -> None:
        wanted = self._written
        while self._synced < wanted:
            async with self._sync_lock:
                # one sync serves everybody who has written before it began
                if self._synced >= wanted:
                    break
                self._check_usable()
                upto = self._written
                descriptor = os.dup(self._descriptor)
                try:
                    await trio.to_thread.run_sync(os.fdatasync, descriptor)
                except OSError as error:
                    self._fail(error)
                finally:
                    os.close(descriptor)
                self._mark_synced(upto)
        self._check_usable()
        if self._lines > max(_COMPACT_AFTER, 2 * len(self.desired)):
            try:
                await self.compact()
            except StoreFailed as error:
                if self._failure:
                    raise
                log.warning("the log of keys could not be made shorter; it is tried again later", reason=str(error))

    def _check_usable(self) -> None:
        if self._failure:
            raise StoreFailed(self._failure)

    def _fail(self, error: OSError) -> NoReturn:
        self._no_room = _is_no_room(error) and (self._no_room or not self._failure)
        self._failure = (
            f"changes cannot be made durable in {self._directory}: {error.strerror}; free space or mend the disk. Customers "
            "are served meanwhile, and changes are taken again within seconds after that"
        )
        raise StoreFailed(self._failure) from error

    async def _snapshot(self) -> None:
        """Write down what is known at this moment, as of the beginning of the current log. Raises OSError."""
        desired, epoch = self.desired, self._epoch
        oldest = self._clock() - REMOVALS_KEPT
        kept = [entry for entry in desired.entries() if entry.spec is not None or entry.changed_at >= oldest]
        head = {
            "format": 1,
            "epoch": epoch,
            "entries": len(kept),
            "seq": desired.sequence,
            "generation": desired.last_generation,
            "ended": desired.ended_upto if math.isfinite(desired.ended_upto) else None,
        }
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._write_snapshot, epoch, head, kept)

    def _write_snapshot(self, epoch: int, head: Mapping[str, object], kept: Sequence[Entry]) -> None:
        lines = [encode_line(head), *(encode_line(change_to_json(entry)) for entry in kept)]
        files.replace(self._directory / "keys.snapshot", b"".join(lines))
        for old_epoch, path in _logs(self._directory):
            if old_epoch < epoch:
                path.unlink()

    def _open_log(self, epoch: int) -> None:
        path = self._directory / f"keys.{epoch}.log"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._epoch = epoch
        self._synced_size = os.fstat(self._descriptor).st_size
        self._lines = 0
        files.sync_directory(self._directory)

    def load(self) -> str:
        """Read everything. Returns a remark about a dropped unfinished change, or "". Raises StoreCorrupt or StoreUnreadable."""
        snapshot = files.read(self._directory / "keys.snapshot")
        epoch = 0 if snapshot is None else self._load_snapshot(snapshot)
        logs = [(number, path) for number, path in _logs(self._directory) if number >= epoch]
        found = [number for number, _ in logs]
        expected = list(range(epoch, epoch + max(len(logs), 0 if snapshot is None else 1)))
        if found != expected:
            missing = min(set(expected) - set(found))
            raise _corrupt(self._directory / f"keys.{missing}.log", 0, 0, "the file is missing")
        remark = ""
        total = 0
        for position, (_, path) in enumerate(logs):
            content = files.read(path) or b""
            whole, lines = self._load_log(path, content, is_last=position == len(logs) - 1)
            total += lines
            if whole < len(content):
                os.truncate(path, whole)
                remark = f"dropped an unfinished change of {len(content) - whole} bytes at the end of {path.name}"
        self._open_log(logs[-1][0] if logs else epoch)
        self._lines = total
        return remark

    def _load_snapshot(self, content: bytes) -> int:
        path = self._directory / "keys.snapshot"
        lines = content.split(b"\n")
        offset = 0
        head: dict[str, object] = {}
        for number, line in enumerate(lines[:-1], start=1):
            try:
                data = decode_line(line)
                if number == 1:
                    head = data
                else:
                    self.desired.apply(change_from_json(data))
            except Damaged as error:
                raise _corrupt(path, number, offset, str(error)) from error
            offset += len(line) + 1
        entries, epoch, sequence, generation = (head.get(name) for name in ("entries", "epoch", "seq", "generation"))
        if lines[-1] or entries != len(lines) - 2:
            raise _corrupt(path, len(lines), offset, "the file is cut short or has foreign lines")
        assert isinstance(epoch, int) and isinstance(sequence, int) and isinstance(generation, int)
        self.desired.sequence = max(self.desired.sequence, sequence)
        self.desired.last_generation = max(self.desired.last_generation, generation)
        ended = head.get("ended")
        if isinstance(ended, int | float):
            self.desired.ended_upto = float(ended)
        return epoch

    def _load_log(self, path: Path, content: bytes, *, is_last: bool) -> tuple[int, int]:
        offset = 0
        *lines, tail = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                change = change_from_json(decode_line(line))
            except Damaged as error:
                raise _corrupt(path, number, offset, str(error)) from error
            expected = self.desired.sequence + 1
            if change.sequence != expected:
                raise _corrupt(path, number, offset, f"change {change.sequence} follows change {expected - 1}")
            self.desired.apply(change)
            offset += len(line) + 1
        if tail and not is_last:
            raise _corrupt(path, len(lines) + 1, offset, "the file is cut short")
        if _is_whole(tail[:-1]):
            # a torn line lacks its end; this one has it, so it was written, and may have been confirmed
            raise _corrupt(path, len(lines) + 1, offset, "its last byte is not the end of a line")
        return offset, len(lines)


def _write(descriptor: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.write(descriptor, data[done:])


def _is_no_room(error: OSError) -> bool:
    return error.errno in files.NO_ROOM


def _logs(directory: Path) -> list[tuple[int, Path]]:
    found = ((_LOG.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match is not None)


def _is_whole(line: bytes) -> bool:
    try:
        decode_line(line)
    except Damaged:
        return False
    return True


def _corrupt(path: Path, line: int, offset: int, what: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"{path} is damaged at line {line} (byte {offset}): {what}. Nothing was started, so that no key is lost or revived "
        f"by accident. Restore the file from a backup, or move keys.snapshot and keys.*.log out of {path.parent} and start "
        "again: the backend then sends every key anew, and links stay valid (ports and REALITY keys are in identity.json)"
    )


def open_store(directory: Path, clock: Callable[[], float]) -> tuple[Store, str]:
    """The store in this directory, and a remark about a dropped unfinished change (or ""). Raises StoreCorrupt or
    StoreUnreadable."""
    store = Store(directory, clock)
    try:
        return store, store.load()
    except OSError as error:
        raise StoreUnreadable(
            f"cannot open the keys in {directory}: {error.strerror}; {files.remedy(error)}"
        ) from error
