"""The control socket lies where the configuration says, else in a place of the user's own; never where others rule."""

from __future__ import annotations

import os
import re
import signal
import socket as unix
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.config.loader import load_text
from runtime.control.protocol import ControlError
from runtime.control.socket import LONGEST, Holder, InstanceLock, make_directory, short_path, socket_path
from runtime.errors import ConfigError, StartRefused
from tests.runtime.atlas_process import PATIENCE, ROOT, short_directory


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def test_the_setting_wins_and_a_relative_one_is_relative_to_the_configuration(place: Path) -> None:
    absolute = load_text(f'[control]\nsocket = "{place}/a.sock"\n')
    assert socket_path(absolute) == place / "a.sock"
    relative = load_text('[control]\nsocket = "b.sock"\n', path=place / "supervisor.toml")
    assert socket_path(relative) == place / "b.sock"


# S-1011
def test_without_a_setting_it_is_in_the_installations_own_data_directory(place: Path) -> None:
    here = place / "supervisor.toml"
    config = load_text('[supervisor]\nname = "shop"\n', path=here)
    assert socket_path(config) == place / ".atlas" / "control" / "shop.sock"
    actor = '[actor.node]\nactor = "actors.pool.embedded_postgres:EmbeddedPostgres"\n'
    named = load_text(f'{actor}[embedded]\ndata_dir = "data"\n', path=here)
    assert socket_path(named) == place / "data" / "control" / "atlas.sock"
    by_environment = load_text(actor, {"ATLAS__EMBEDDED__DATA_DIR": "/srv/two"}, path=here)
    assert socket_path(by_environment) == Path("/srv/two/control/atlas.sock")


# S-1011
def test_however_long_its_path_is_the_socket_can_be_reached_and_lies_there(place: Path) -> None:
    deep = place / ("x" * 120) / ("y" * 120) / "a.sock"
    make_directory(deep)
    with unix.socket(unix.AF_UNIX) as server, unix.socket(unix.AF_UNIX) as client:
        with short_path(deep) as path:
            assert len(path) <= LONGEST
            server.bind(path)
        server.listen()
        assert stat.S_ISSOCK(deep.stat().st_mode)
        with short_path(deep) as path:
            client.connect(path)
    with short_path(place / "a.sock") as short:
        assert short == str(place / "a.sock")


def test_a_name_longer_than_the_kernel_takes_names_the_setting() -> None:
    with pytest.raises(ConfigError, match=r"125 bytes long and may have \d+; set \[control\] socket") as raised:
        socket_path(load_text(f'[control]\nsocket = "/tmp/{"ü" * 60}.sock"\n'))
    assert raised.value.exit_code == 78


def test_the_directory_is_made_for_its_owner_alone(place: Path) -> None:
    make_directory(place / "deep" / "er" / "a.sock")
    assert stat.S_IMODE((place / "deep" / "er").stat().st_mode) == 0o700
    make_directory(place / "deep" / "er" / "a.sock")


def test_a_directory_where_others_may_write_is_refused_but_the_temporary_one_is_not(place: Path) -> None:
    open_to_all = place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigError, match="lets everybody write; set \\[control\\] socket"):
        make_directory(open_to_all / "a.sock")
    open_to_all.chmod(0o1777)
    make_directory(open_to_all / "a.sock")


def test_a_file_in_the_way_is_named(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be used: .*file.*; set \[control\] socket to another place"):
        make_directory(place / "file" / "a.sock")


HOLDER = """
import signal, sys
from pathlib import Path
from runtime.control.socket import InstanceLock
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
