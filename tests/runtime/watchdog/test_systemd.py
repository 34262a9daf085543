from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.watchdog.systemd import Systemd
from tests.run_queue import Stopwatch


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The manager's end of a real notification socket."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        end.bind(path)
        yield end, path


def test_what_is_said_arrives(manager: tuple[socket.socket, str]) -> None:
    end, path = manager
    systemd = Systemd.from_environment({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"})
    assert systemd.is_there
    assert systemd.watchdog_seconds == 30
    systemd.ready()
    systemd.alive()
    systemd.status("two\nlines")
    systemd.extend(2.5)
    systemd.stopping()
    assert [end.recv(1000).decode() for _ in range(5)] == [
        "READY=1",
        "WATCHDOG=1",
        "STATUS=two lines",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1",
    ]
    systemd.close()
    systemd.alive()
    assert not systemd.is_there


def test_an_abstract_socket_is_reached() -> None:
    name = f"atlas-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        end.bind(f"\0{name}")
        systemd = Systemd(f"@{name}")
        systemd.ready()
        assert end.recv(100) == b"READY=1"
        systemd.close()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
    ],
)
def test_the_watchdog_of_another_process_or_none_is_not_ours(
    environment: dict[str, str], seconds: float | None
) -> None:
    systemd = Systemd.from_environment(environment)
    assert systemd.watchdog_seconds == seconds
    assert not systemd.is_there
    systemd.alive()


def test_a_manager_that_does_not_read_or_is_gone_never_blocks(manager: tuple[socket.socket, str]) -> None:
    end, path = manager
    systemd = Systemd(path)
    took = Stopwatch()
    for _ in range(5000):
        systemd.alive()
    end.close()
    systemd.alive()
    assert took.seconds() < 5, str(took)
    systemd.close()
