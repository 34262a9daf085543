"""The unit of the supervisor: systemd finds nothing wrong with it, hears what it waits for, and within its fence all works."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.e2e import socks
from tests.e2e.customer import client
from tests.e2e.origin import origin
from tests.e2e.stack import REPOSITORY
from tests.postgres_cluster import Cluster
from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import empty_database_dsn as empty_database_dsn
from tests.run_queue import at_most
from tests.ship.installation import PATIENCE, Installation, place
from tests.vpn.agent.install.restricted import ANALYZE

UNIT = REPOSITORY / "ops" / "systemd" / "atlas.service"


def setting(name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found, name
    return found[1]


def verify(tmp_path: Path, text: str) -> str:
    """What systemd has to say of the unit; it exits with 0 also for keys that it does not know."""
    unit = tmp_path / "atlas.service"
    unit.write_text(text.replace("/opt/atlas/bin/atlas", sys.executable))
    done = subprocess.run([ANALYZE, "verify", str(unit)], check=False, capture_output=True, text=True)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def test_systemd_finds_nothing_wrong_with_the_unit_and_would_say_so(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert verify(tmp_path, text) == "0 "
    assert "Unknown key" in verify(tmp_path, text.replace("WatchdogSec=", "WatchdogSeconds="))
    limit = ["security", "--offline=true", "--threshold=30", str(tmp_path / "atlas.service")]
    verify(tmp_path, text)
    subprocess.run([ANALYZE, *limit], check=True, capture_output=True)
    assert float(setting("TimeoutStopSec")) > 30.0 + 10.0, (
        "longer than supervisor.shutdown_budget, and room for the rest"
    )


class Notified:
    """A stand-in for systemd's socket: what was said, and a wait for a line."""

    def __init__(self, path: Path) -> None:
        self.socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = path
        self.said: list[str] = []

    async def until(self, line: str) -> None:
        with trio.fail_after(PATIENCE):
            while line not in (part for one in self.said for part in one.splitlines()):
                self.said.append((await self.socket.recv(1 << 16)).decode())


@asynccontextmanager
async def notified(here: Installation) -> AsyncIterator[Notified]:
    """The environment that systemd gives, and what is said to it."""
    found = Notified(here.home.parent / "notify")
    with found.socket:
        await found.socket.bind(str(found.path))
        here.env |= {"NOTIFY_SOCKET": str(found.path), "WATCHDOG_USEC": str(int(setting("WatchdogSec")) * 1_000_000)}
        yield found


async def test_systemd_hears_of_start_life_reload_and_stop_and_gives_credentials(tmp_path: Path) -> None:
    async with place() as here, notified(here) as systemd:
        await here.ok("init")
        credentials = tmp_path / "credentials"
        credentials.mkdir(mode=0o700)
        (credentials / "admin.token").write_text("a-token-of-the-monitoring")
        (credentials / "admin.token").chmod(0o400)
        here.env["CREDENTIALS_DIRECTORY"] = str(credentials)
        async with here.running() as supervisor:
            await systemd.until("READY=1")
            systemd.said.clear()
            await systemd.until("WATCHDOG=1")
            systemd.said.clear()
            reload = setting("ExecReload").replace("$MAINPID", str(supervisor.pid))
            await trio.run_process(reload.split())
            await systemd.until("WATCHDOG=1")
            shown = (await here.ok("events", "--json")).stdout
            assert "reload" in shown.lower()
            made = await here.ok("backup", str(here.home.parent / "b"), "--json")
            assert "CREDENTIALS_DIRECTORY" in made.stdout, "what a backup cannot have is named"
            supervisor.send_signal(signal.SIGTERM)
            await systemd.until("STOPPING=1")
            with at_most(float(setting("TimeoutStopSec"))):
                assert await supervisor.wait() == 0
        assert not (set(setting("RestartPreventExitStatus").split()) - {"64", "77", "78"})


@pytest.mark.system
async def test_within_the_fence_of_the_unit_a_customer_is_served_and_cut(
    cluster: Cluster, empty_database_dsn: str
) -> None:
    cluster.root.chmod(0o755)  # root without its capabilities is held to modes, too
    async with place() as here, origin() as site:
        fence = here.home.parent / "fence.py"
        shutil.copy(REPOSITORY / "tests" / "vpn" / "agent" / "install" / "restricted.py", fence)
        here.env |= {"ATLAS__DATABASE__DSN": empty_database_dsn}
        await here.ok("init")
        fenced = Fenced(here.home, here.env)
        fenced.fence = fence
        async with fenced.running():
            link = await fenced.buy(42, "first")
            async with client(fenced, link) as proxy:
                await fenced.until_fetched(proxy, site.port)
                held = await socks.connect(proxy, "127.0.0.1", site.port)
                await held.send_all(b"GET /stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nping")
                assert b"200 OK" in await held.receive_some()
                await fenced.ok("revoke", "42")
                with trio.fail_after(PATIENCE), contextlib.suppress(trio.BrokenResourceError):
                    while await held.receive_some():
                        pass
                await held.aclose()


class Fenced(Installation):
    """One of which `atlas run` is held by the unit's system calls, capabilities and privileges."""

    fence: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-P", str(self.fence), str(UNIT), *super().command]
