"""One process per control socket, for as long as that process lives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.control.instance_lock import Holder, InstanceLock
from runtime.control.protocol import ControlError
from runtime.errors import StartRefused
from tests.runtime.atlas_process import PATIENCE, ROOT, short_directory

HOLDER = """
import signal, sys
from pathlib import Path
from runtime.control.instance_lock import InstanceLock
InstanceLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
signal.pause()
"""


@pytest.fixture
def socket() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "a.sock"


@pytest.fixture
def holder(socket: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(socket)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(timeout=PATIENCE)
        process.stdout.close()


def test_a_second_holder_is_refused_with_the_pid_and_age_of_the_first(
    socket: Path, holder: subprocess.Popen[str]
) -> None:
    lock = InstanceLock(socket)
    with pytest.raises(StartRefused) as raised:
        lock.acquire()
    assert raised.value.exit_code == 69
    assert re.search(rf"holds the control socket {re.escape(str(socket))}: pid {holder.pid}, for \d", str(raised.value))
    assert "atlas stop" in str(raised.value)
    lock.release()


def test_the_lock_ends_with_its_holder_however_that_ends(socket: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=PATIENCE)
    lock = InstanceLock(socket)
    lock.acquire()
    lock.release()


def test_a_released_lock_can_be_taken_again_and_its_children_do_not_inherit_it(socket: Path) -> None:
    first, second = InstanceLock(socket), InstanceLock(socket)
    first.acquire()
    child = subprocess.Popen(["/bin/sleep", "60"])
    try:
        first.release()
        second.acquire()
        second.release()
    finally:
        child.kill()
        child.wait(timeout=PATIENCE)


def test_a_lock_file_that_tells_nothing_is_still_a_lock(socket: Path) -> None:
    first = InstanceLock(socket)
    first.acquire()
    os.truncate(socket.with_name("a.sock.lock"), 0)
    with pytest.raises(StartRefused, match="it is starting at this moment"):
        InstanceLock(socket).acquire()
    first.release()


def test_a_link_in_the_place_of_the_lock_is_not_followed(socket: Path) -> None:
    socket.with_name("a.sock.lock").symlink_to(socket.with_name("target"))
    with pytest.raises(StartRefused, match="cannot be opened"):
        InstanceLock(socket).acquire()
    assert not socket.with_name("target").exists()


def test_waiting_for_the_end_of_the_holder_is_bounded(socket: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(ControlError, match=rf"still stopping after 0.01 s: pid {holder.pid}") as raised:
        Holder(socket).wait_until_gone(0.01)
    assert raised.value.exit_code == 69
    with Holder(socket) as seen:
        holder.kill()
        seen.wait_until_gone(PATIENCE)


def test_who_takes_the_lock_next_is_not_waited_for(socket: Path, holder: subprocess.Popen[str]) -> None:
    with Holder(socket) as seen:
        holder.kill()
        holder.wait(timeout=PATIENCE)
        successor = InstanceLock(socket)
        successor.acquire()
        seen.wait_until_gone(0.01)
        with Holder(socket) as next_one, pytest.raises(ControlError, match=f"pid {os.getpid()}"):
            next_one.wait_until_gone(0.01)
        successor.release()


def test_where_nobody_ever_held_the_lock_there_is_nobody_to_wait_for(socket: Path) -> None:
    with Holder(socket) as nobody:
        nobody.wait_until_gone(0.01)
