"""What operators and systemd are told, and what must not depend on anybody reading it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.watchdog.watched_process import LONG, watched

BUSY_POOL = """
[actor."pool.main"]
actor = "{actors}:BusyPool"
[actor.activation]
actor = "{actors}:Worker"
args = {{ interval = 0.2, start_jitter = [0.0, 0.0], stuck = true }}
shutdown = 0.3
needs = ["pool.main"]
"""
BLOCKER = """
[actor.reconcile]
actor = "{actors}:LoopBlocker"
args = {{ how = "sleep" }}
needs = ["activation"]
"""
DETAILS = re.compile(
    r'pool\.main: \{"leases": \[\{"label": "reconcile", "held_seconds": \d\.\d\}\], '
    r'"waiting": \[\{"label": "debit", "waited_seconds": \d\.\d\}\]\}'
)


async def test_starving_workers_after_a_pool_wait_spike_tell_ages_holders_and_waiters() -> None:
    """The worker is not restarted here (its stale limit is far), or it would not get so stale."""
    async with watched(BUSY_POOL, worker_stale=LONG, worker_critical=1.0) as process:
        line = await process.err.until("workers starve")
        assert "CRITICAL" in line
        assert re.search(
            r"event_loop 0\.\d s, worker 1\.\d s \(activation is (overdue|starved)\), healthcheck \d\.\d s; "
            r'last pool wait spike: \d\.\d s ago \(pool\.main: "debit" waited 5\.30 s\)',
            line,
        ), line
        assert DETAILS.search(line), line
        assert set((await process.incarnations()).values()) == {1}
        assert await process.stop() == 0


async def test_the_same_is_told_while_the_loop_stands_and_when_it_leaves() -> None:
    """Actors can be asked about themselves on the loop only: the thread tells what was seen last."""
    async with watched(BUSY_POOL + BLOCKER, worker_critical=1.0) as process:
        assert await process.exit() == 70
        starving = process.err.text.partition("CRITICAL workers starve")[2]
        assert re.search(r"event_loop \d\.\d s, worker \d\.\d s \(\w+ is \w+\), healthcheck \d\.\d s", starving)
        assert len(DETAILS.findall(process.err.text)) == 2, process.err.text
        assert re.search(r"\}\]\} \(as seen \d\.\d s ago\)", starving)


async def test_a_starving_worker_without_a_spike_makes_no_diagnostic() -> None:
    async with watched(BUSY_POOL, worker_critical=0.5, spike_window=0.1) as process:
        await process.out.until("worker activation is fresh again")
        assert "workers starve" not in process.err


async def test_a_remote_outage_degrades_readiness_and_restarts_nothing() -> None:
    """The remote side takes connections and says nothing, for many rounds and several limits."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        port = silent.getsockname()[1]
        text = f"""
[actor.remote]
actor = "{{actors}}:RemoteUser"
args = {{{{ interval = 0.1, start_jitter = [0.0, 0.0], budget = 0.5, port = {port} }}}}
[actor.healthcheck]
actor = "{{actors}}:RemoteHealthcheck"
args = {{{{ port = {port} }}}}
"""
        async with watched(text, others=False) as process:
            await process.out.until("10 rounds found the remote side down")
            await process.out.until("the iteration was cut off at its budget of 0.5 s", times=4)
            assert await process.incarnations() == {"remote": 1, "healthcheck": 1}
            status = await process.call("status")
            assert status["not_ready"] == ["remote"]
            assert process.complaints == []
            assert await process.stop() == 0


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that is full, and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
    os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_blocked_stdout_stops_neither_the_loop_nor_the_watchdog_nor_the_exit() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(repaired_beside_a_blocked_stdout)
        nursery.start_soon(left_beside_a_blocked_stdout)


async def repaired_beside_a_blocked_stdout() -> None:
    with full_pipe() as pipe:
        async with watched(BUSY_POOL, stdout=pipe) as process:
            await process.err.until("worker activation is")
            await process.err.until("activation killed")
            with trio.fail_after(20):
                while (await process.incarnations())["activation"] != 2:
                    pass  # each answer is awaited: the socket is the only way left to see it
            assert await process.stop() == 0


async def left_beside_a_blocked_stdout() -> None:
    with full_pipe() as pipe:
        async with watched(BUSY_POOL + BLOCKER, stdout=pipe) as process:
            assert await process.exit() == 70
            assert "leaving with status 70" in process.err


class Manager:
    """systemd's end of the notification socket: a real datagram socket."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.path)

    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "600000"}

    async def until(self, text: bytes) -> None:
        with trio.fail_after(30):
            while await self._receive() != text:
                pass

    async def _receive(self) -> bytes:
        await trio.lowlevel.wait_readable(self._socket)
        return self._socket.recv(100)

    async def is_silent(self, seconds: float) -> bool:
        """Whether so long nothing keeps us alive, after what is on its way already."""
        while True:
            with trio.move_on_after(seconds) as scope:
                await self._receive()
            if scope.cancelled_caught:
                return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


# S-812
async def test_systemd_is_told_while_one_beat_is_stale_and_being_repaired(manager: Manager) -> None:
    """Every incarnation of this health check freezes, so that its beat cannot become fresh for long."""
    text = """
[actor.healthcheck]
actor = "{actors}:Healthcheck"
args = {{ freezes_at = 8, incarnations = 99 }}
"""
    async with watched(text, others=False, env=manager.environment(), worker_stale=LONG) as process:
        await manager.until(b"READY=1")
        await process.err.until("healthcheck healthcheck is silent")
        for _ in range(5):
            await manager.until(b"WATCHDOG=1")
        assert (await process.incarnations())["healthcheck"] >= 1


# S-812
async def test_systemd_leaves_a_loop_that_stands_beside_fresh_beats_to_the_watchdog(manager: Manager) -> None:
    async with watched(
        BUSY_POOL + BLOCKER, env=manager.environment(), worker_stale=LONG, healthcheck_stale=LONG
    ) as process:
        await manager.until(b"READY=1")
        await manager.until(b"WATCHDOG=1")
        await process.err.until("CRITICAL the event loop has not turned")
        for _ in range(5):
            await manager.until(b"WATCHDOG=1")
        assert process.process.returncode is None
