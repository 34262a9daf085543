"""A node whose parts fail: its disk, its Xray, whoever touches Xray besides the agent, and its clock. After healing it does
what is wanted, and nobody who pays was cut meanwhile."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio

from tests.fork_server import ForkServer
from tests.run_queue import at_most
from tests.stopping import stop
from tests.vpn.agents import RunningAgent, configured_agent, gone, key, running_agent
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.digest import digest
from vpn.errors import NodeConflict, NodeUnavailable, TunnelError
from vpn.protocol import KeySpec, KeyState
from vpn.xray.api import XrayApi, XrayUser
from vpn.xray.grpc import GrpcChannel
from vpn.xray.tunnel import open_tunnel


@pytest.fixture
async def watchful(tmp_path: Path, fork_server: ForkServer) -> AsyncIterator[RunningAgent]:
    """An agent that compares Xray with what is wanted five times a second."""
    async with configured_agent(tmp_path, fork_server, "verify_every = 0.2") as agent:
        yield agent


@contextlib.asynccontextmanager
async def xray_of(agent: RunningAgent) -> AsyncIterator[XrayApi]:
    """The agent's Xray, spoken to behind the agent's back."""
    descriptor = os.open(agent.directory / "xray", os.O_PATH | os.O_DIRECTORY)
    channel = GrpcChannel(f"/proc/self/fd/{descriptor}/xray.sock")
    try:
        yield XrayApi(channel)
    finally:
        await channel.aclose()
        os.close(descriptor)


async def until_xray_has(xray: XrayApi, *wanted: KeySpec) -> None:
    """Wait until Xray serves exactly these."""
    users = {(spec.key_id, spec.uuid) for spec in wanted}
    with trio.fail_after(10):
        while {(user.email, user.uuid) for user in await xray.list_users("vless")} != users:
            await trio.lowlevel.checkpoint()


def limit_files(agent: RunningAgent, size: int) -> None:
    """As a disk with so little room: the agent's files cannot grow beyond this size."""
    resource.prlimit(agent.child.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_full_disk_costs_no_customer_and_heals_by_itself(agent: RunningAgent, origin: Origin) -> None:
    kept, late = key("kept"), key("late")
    async with (
        agent.client() as client,
        open_tunnel(agent.link(kept)) as tunnel,
        open_tunnel(agent.link(late)) as other,
    ):
        await client.put(kept)
        size = (agent.directory / "keys.0.log").stat().st_size
        async with open_stream(tunnel, origin) as stream:
            limit_files(agent, size + 20)
            for _ in range(2):
                with pytest.raises(NodeUnavailable, match="free space"):
                    await client.put(late)
            with pytest.raises(NodeUnavailable):
                await client.remove("kept", 1)
            state = await client.state()
            assert state.ready and "free space" in state.why and state.count == 1
            await read_more(stream, 50)
            limit_files(agent, resource.RLIM_INFINITY)
            with trio.fail_after(10):
                while (await client.state()).why:
                    await trio.lowlevel.checkpoint()
            assert (await client.put(late)).state is KeyState.SERVING
            assert (await other.fetch(origin.url)).body == PAGE
            await read_more(stream, 50)
    await agent.kill()
    assert {path.name for path in agent.directory.glob("keys.*")} == {"keys.0.log"}, "no second copy was needed"


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 128 KiB; yields a file that takes all that is left of it as long as it is there."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("needs mount and umount")
    directory.mkdir()
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=128k", "atlas-test", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs to mount a file system (CAP_SYS_ADMIN)")
    try:
        yield directory / "filler"
    finally:
        subprocess.run([unmount, "--lazy", str(directory)], check=True)


def make_larger(directory: Path) -> None:
    """Give the small disk some pages more: far from enough for what it holds already."""
    mount = shutil.which("mount")
    assert mount is not None
    subprocess.run([mount, "-o", "remount,size=160k", str(directory)], check=True)


def fill(filler: Path) -> None:
    """Leave no page free."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass


@pytest.mark.system
@pytest.mark.root
async def test_on_a_full_disk_customers_are_served_and_ended_and_confirmed_keys_survive(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    kept, ending = key("kept"), key("ending", expires_at=datetime.now(UTC) + timedelta(minutes=10))
    confirmed = [kept, ending]
    with small_disk(tmp_path / "node") as filler:
        async with (
            running_agent(tmp_path / "node", "--clock-offset", "0", server=fork_server) as agent,
            agent.client() as client,
            open_tunnel(agent.link(kept)) as one,
            open_tunnel(agent.link(ending)) as other,
        ):
            for spec in confirmed:
                await client.put(spec)
            async with open_stream(one, origin) as stream, open_stream(other, origin) as ended:
                fill(filler)
                with pytest.raises(NodeUnavailable, match="No space left"):
                    while True:  # until the last page of the log is full
                        spec = key(f"more-{len(confirmed)}")
                        await client.put(spec)
                        confirmed.append(spec)
                await client.move_clock(3600)
                with at_most(2):
                    await read_until_cut(ended)
                await read_more(stream, 50)
                filler.unlink()
                with trio.fail_after(10):
                    while (await client.state()).why:
                        await trio.lowlevel.checkpoint()
                await client.put(spec)
                confirmed.append(spec)
                await read_more(stream, 50)
            await agent.kill()
        async with running_agent(tmp_path / "node", server=fork_server) as again, again.client() as client:
            assert (await client.state()).digest == digest(confirmed)


@pytest.mark.system
@pytest.mark.root
async def test_a_disk_too_small_for_a_second_copy_recovers_and_starts_while_full(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    """The log takes more than half of a real file system, so that it could never be written anew beside itself."""
    spec = key("more-0")
    confirmed: list[KeySpec] = []
    with small_disk(tmp_path / "node") as filler:
        async with (
            running_agent(tmp_path / "node", server=fork_server) as agent,
            agent.client() as client,
            open_tunnel(agent.link(spec)) as tunnel,
        ):
            with pytest.raises(NodeUnavailable, match="No space left"):
                while True:
                    await client.put(spec)
                    confirmed.append(spec)
                    spec = key(f"more-{len(confirmed)}")
            log, room = agent.directory / "keys.0.log", os.statvfs(agent.directory)
            assert log.stat().st_size > room.f_blocks * room.f_frsize / 2
            assert (await tunnel.fetch(origin.url)).body == PAGE
            await agent.kill()
        fill(filler)
        async with (  # nothing of what must be there to serve customers needs room
            running_agent(tmp_path / "node", server=fork_server) as again,
            again.client() as client,
            open_tunnel(again.link(confirmed[-1])) as tunnel,
        ):
            assert (await tunnel.fetch(origin.url)).body == PAGE
            assert (await client.state()).digest == digest(confirmed)
            with pytest.raises(NodeUnavailable, match="No space left"):
                for number in range(20):  # the last page of the log has room for some
                    late = key(f"late-{number}")
                    await client.put(late)
                    confirmed.append(late)
            make_larger(again.directory)
            with trio.fail_after(10):
                while (await client.state()).why:
                    await trio.lowlevel.checkpoint()
            await client.put(late)
            confirmed.append(late)
            assert list(again.directory.glob("*.new")) == []
            await again.kill()
        async with running_agent(tmp_path / "node", server=fork_server) as last, last.client() as client:
            assert (await client.state()).digest == digest(confirmed)


async def test_what_is_confirmed_after_a_full_disk_survives_a_kill(tmp_path: Path, fork_server: ForkServer) -> None:
    before, after = key("before"), key("after")
    async with running_agent(tmp_path / "node", server=fork_server) as first, first.client() as client:
        await client.put(before)
        limit_files(first, (first.directory / "keys.0.log").stat().st_size)
        with pytest.raises(NodeUnavailable):
            await client.put(key("never"))
        limit_files(first, resource.RLIM_INFINITY)
        with trio.fail_after(10):
            while (await client.state()).why:
                await trio.lowlevel.checkpoint()
        await client.put(after)
        await first.kill()
    async with running_agent(tmp_path / "node", server=fork_server) as second, second.client() as client:
        assert (await client.state()).digest == digest([before, after])


async def test_whatever_is_done_to_xray_behind_our_back_is_put_right_and_counted(
    watchful: RunningAgent, origin: Origin
) -> None:
    removed, twinned, kept = key("removed"), key("twinned"), key("kept")
    async with watchful.client() as client, xray_of(watchful) as xray, open_tunnel(watchful.link(kept)) as tunnel:
        for spec in (removed, twinned, kept):
            await client.put(spec)
        async with open_stream(tunnel, origin) as stream:
            await xray.remove_user("vless", "removed")
            await xray.add_user("vless", XrayUser("unknown", key("x").uuid, ""))
            await xray.add_user("vless", XrayUser("twin", twinned.uuid, ""))
            await until_xray_has(xray, removed, twinned, kept)
            await read_more(stream, 50)
        for spec in (removed, twinned, kept):
            async with open_tunnel(watchful.link(spec)) as served:
                assert (await served.fetch(origin.url)).body == PAGE, spec.key_id
        state = await client.state()
        assert (state.count, state.serving, state.pending) == (3, 3, 0)


async def test_users_who_all_vanish_behind_our_back_come_back_without_cutting_anybody(
    watchful: RunningAgent, origin: Origin
) -> None:
    """From 500 new keys on, an Xray that serves nobody is started anew. One whose users were taken away carries customers."""
    specs = [key(f"customer-{number:03}") for number in range(500)]
    async with watchful.client() as client, xray_of(watchful) as xray, open_tunnel(watchful.link(specs[0])) as tunnel:
        await client.sync(specs)
        boot = (await client.state()).boot_id
        async with open_stream(tunnel, origin) as stream:
            stop(watchful.child.pid)  # or it would put them back one by one
            for spec in specs:
                await xray.remove_user("vless", spec.key_id)
            watchful.child.send_signal(signal.SIGCONT)
            await until_xray_has(xray, *specs)
            await read_more(stream, 50)
        assert (await client.state()).boot_id == boot


async def test_a_foreign_user_loses_its_open_connections_too(watchful: RunningAgent, origin: Origin) -> None:
    foreign = key("unknown")
    async with xray_of(watchful) as xray, open_tunnel(watchful.link(foreign)) as tunnel:
        await xray.add_user("vless", XrayUser("unknown", foreign.uuid, ""))
        with trio.fail_after(10):
            with contextlib.suppress(TunnelError, AssertionError, trio.BrokenResourceError):
                async with open_stream(tunnel, origin) as stream:
                    await read_until_cut(stream)
            await until_xray_has(xray)
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url)


async def test_a_node_whose_clock_is_wrong_shows_it_and_heals_with_it(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    """An hour ahead, a node ends keys an hour early: the backend sees the difference in `NodeState.now`."""
    spec = key("customer", expires_at=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30))
    for_ever = key("for-ever")
    async with (
        running_agent(tmp_path / "node", "--clock-offset", "3600", server=fork_server) as node,
        node.client() as client,
        open_tunnel(node.link(spec)) as tunnel,
        open_tunnel(node.link(for_ever)) as two,
    ):
        ahead = (await client.state()).now - datetime.now(UTC)
        assert timedelta(minutes=59) < ahead < timedelta(minutes=61)
        await client.put(for_ever)
        assert (await client.put(spec)).state is KeyState.EXPIRED
        assert (await two.fetch(origin.url)).body == PAGE, "keys without an end do not mind"
        await client.move_clock(0)
        assert (await client.put(spec)).state is KeyState.SERVING
        assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_requests_of_an_older_world_arriving_late_in_any_order_change_nothing(agent: RunningAgent) -> None:
    """Copies of everything that was ever sent, sent again after the end: the state stays what it was."""
    history: list[KeySpec | tuple[str, int]] = []
    async with agent.client() as client:
        for name in ("one", "two", "three"):
            for generation in range(1, 4):
                spec = key(name, generation=generation)
                await client.put(spec)
                history.append(spec)
            if name != "three":
                await client.remove(name, 3)
                history.append((name, 3))
        before = await client.state()
        for copy in (*reversed(history), *history):
            with contextlib.suppress(NodeConflict):
                await (client.put(copy) if isinstance(copy, KeySpec) else client.remove(*copy))
        after = await client.state()
    assert (after.digest, after.count, after.sequence) == (before.digest, 1, before.sequence)


async def test_xray_killed_again_and_again_serves_the_wanted_keys_and_no_others(
    agent: RunningAgent, origin: Origin
) -> None:
    wanted, removed = key("wanted"), key("removed")
    async with agent.client() as client, open_tunnel(agent.link(wanted)) as tunnel:
        await client.put(wanted)
        await client.put(removed)
        boots = {(await client.state()).boot_id}
        for number in range(3):
            (xray,) = agent.xray_pids()
            os.kill(xray, signal.SIGKILL)
            await gone(xray)
            if number == 0:
                await client.remove("removed", 1)  # while there is no Xray to remove it from
            await client.put(attrs.evolve(wanted))
            boots.add((await client.state()).boot_id)
        assert len(boots) == 4
        async with xray_of(agent) as api:
            await until_xray_has(api, wanted)
        assert (await tunnel.fetch(origin.url)).body == PAGE
