"""A tunnel made from a link alone, as a library and as the command an operator types."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from uuid import uuid4

import attrs
import pytest
import trio

from runtime import LeaseHeldAcrossCall, current_lease
from runtime.child_process import PIPE, spawn
from tests.run_queue import PATIENCE
from tests.vpn.agents import RunningAgent, children_of, gone, key, read_line
from tests.vpn.origin import PAGE, Origin
from vpn.errors import TunnelError, XrayCannotListen, XrayConfigRefused
from vpn.link import VlessLink
from vpn.xray.tunnel import open_tunnel

ATLAS = [sys.executable, "-m", "runtime.cli.main"]
NOWHERE = VlessLink(uuid4(), "127.0.0.1", 9)


@attrs.frozen
class Held:
    """A database lease that is still open."""

    is_open: bool = True
    label: str = "a label"
    site: str = "somewhere.py:1"

    def note_refused_call(self, error: Exception) -> None:
        """Nobody looks."""


async def atlas(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    with trio.fail_after(40):
        done = await trio.run_process(
            [*ATLAS, *arguments], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_the_command_prints_the_page_and_ends_well(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    async with agent.client() as client:
        await client.put(spec)
    link = agent.link(spec).render()
    assert await atlas("tunnel", link, "--fetch", origin.url) == (0, PAGE.decode(), "")
    assert await atlas("tunnel", "-", "--fetch", origin.url, stdin=link.encode()) == (0, PAGE.decode(), "")


async def test_the_command_says_why_nothing_came_and_ends_with_69(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    status, out, err = await atlas("tunnel", agent.link(spec).render(), "--fetch", origin.url)
    assert (status, out) == (69, "")
    assert "refused the key" in err and "Traceback" not in err
    assert str(spec.uuid) not in err


async def test_a_text_that_is_no_link_ends_with_64_and_is_not_repeated() -> None:
    status, out, err = await atlas("tunnel", f"vless://{NOWHERE.uuid}@h:1?type=pigeon")
    assert (status, out) == (64, "")
    assert "type is not one of" in err and str(NOWHERE.uuid) not in err


async def test_the_command_offers_a_proxy_until_it_is_asked_to_end(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    async with agent.client() as client:
        await client.put(spec)
    child = spawn([*ATLAS, "tunnel", agent.link(spec).render()], name="tunnel", stdout=PIPE)
    try:
        with trio.fail_after(20):
            host, _, port = json.loads(await read_line(child))["socks"].rpartition(":")
        (xray,) = children_of(child.pid)
        async with await trio.open_tcp_stream(host, int(port)) as proxy:
            await proxy.send_all(f"GET {origin.url} HTTP/1.1\r\nHost: origin\r\n\r\n".encode())
            answer = b""
            while PAGE not in answer:
                part = await proxy.receive_some()
                assert part
                answer += part
        child.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            assert await child.wait() == 0
            await gone(xray)
    finally:
        await child.close()


async def test_killing_the_command_leaves_no_xray() -> None:
    child = spawn([*ATLAS, "tunnel", NOWHERE.render()], name="tunnel", stdout=PIPE)
    try:
        with trio.fail_after(20):
            await read_line(child)
        (xray,) = children_of(child.pid)
        child.send_signal(signal.SIGKILL)
        with trio.fail_after(PATIENCE):
            await gone(xray)
    finally:
        await child.close()


async def test_the_node_command_shows_a_node(agent: RunningAgent) -> None:
    async with agent.client() as client:
        await client.put(key("customer"))
    token_file = agent.directory.parent / "node.token"
    arguments = ("node", "state", "--url", agent.url, "--token-file", str(token_file))
    status, out, err = await atlas(*arguments)
    assert (status, err) == (0, "")
    assert "1 wanted: 1 serving" in out and f"127.0.0.1:{agent.facts.port}" in out
    shown = json.loads((await atlas(*arguments, "--json"))[1])
    assert shown["count"] == 1 and shown["inbound"]["port"] == agent.facts.port
    token_file.write_text("not-the-right-token")
    status, out, err = await atlas(*arguments)
    assert (status, out) == (69, "") and "token" in err and "not-the-right-token" not in err


async def test_a_tunnel_gives_its_body_errors_as_they_are() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_tunnel(NOWHERE):
            raise KeyError("mine")


async def test_a_tunnel_that_is_left_or_cancelled_leaves_no_process() -> None:
    before = set(children_of_this_process())
    async with open_tunnel(NOWHERE):
        (inside,) = set(children_of_this_process()) - before
    await gone(inside)
    with trio.CancelScope() as scope:
        async with open_tunnel(NOWHERE):
            (inside,) = set(children_of_this_process()) - before
            scope.cancel()
            await trio.lowlevel.checkpoint()
    await gone(inside)


def children_of_this_process() -> list[int]:
    """Processes that this one started."""
    return children_of(os.getpid())


async def test_a_taken_port_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(XrayCannotListen, match=f"127.0.0.1:{port}"):
            async with open_tunnel(NOWHERE, port=port):
                raise AssertionError("the port is taken")


async def test_a_link_this_client_cannot_use_is_refused_before_anything_starts() -> None:
    with pytest.raises(XrayConfigRefused, match="grpc"):
        async with open_tunnel(attrs.evolve(NOWHERE, network="grpc")):
            raise AssertionError("such a link cannot be used")


async def test_a_node_that_is_not_there_is_no_page(origin: Origin) -> None:
    async with open_tunnel(NOWHERE) as tunnel:
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url, within=5)
        with pytest.raises(TunnelError, match="http"):
            await tunnel.fetch("ftp://127.0.0.1/")


async def test_nothing_goes_through_a_tunnel_while_a_lease_is_held(origin: Origin) -> None:
    async with open_tunnel(NOWHERE) as tunnel:
        token = current_lease.set(Held())
        try:
            with pytest.raises(LeaseHeldAcrossCall, match="a label"):
                await tunnel.fetch(origin.url)
        finally:
            current_lease.reset(token)
