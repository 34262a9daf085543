"""sing-box: its own checker takes the configuration, and its own client reaches the origin with it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings

from runtime.child_process import PIPE, ChildProcess, spawn
from tests.clients.programs import sing_box_program
from tests.vpn.agents import RunningAgent, key
from tests.vpn.origin import PAGE, Origin
from tests.vpn.subscription.samples import lists
from vpn.errors import LinkError, TunnelError
from vpn.link import VlessLink
from vpn.ports import choose_passing
from vpn.protocol import FLOW_VISION
from vpn.subscription import Format, render
from vpn.subscription.entries import labels
from vpn.xray import x25519
from vpn.xray.tunnel import Tunnel

ONE = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")
PLAIN = [
    VlessLink(ONE, "127.0.0.1", 4430, name="loopback"),
    VlessLink(ONE, "2001:db8::1", 443, name="🇩🇪 v6"),
    VlessLink(ONE, "xn--e1afmkfd.xn--p1ai", 443, name="🇩🇪 v6"),
    VlessLink(ONE, "node.example", 443, security="tls", sni="www.example.org", extra=(("alpn", "h2"),)),
]
REALITY = VlessLink(
    ONE,
    "node.example",
    443,
    name="real",
    security="reality",
    flow=FLOW_VISION,
    sni="www.example.org",
    fingerprint="firefox",
    public_key=x25519.encode(bytes(range(32))),
    short_id="a1b2",
)


def check(content: bytes, directory: Path) -> subprocess.CompletedProcess[str]:
    """What `sing-box check` says."""
    file = directory / "config.json"
    file.write_bytes(content)
    return subprocess.run(  # the checker ends by itself
        [sing_box_program(), "check", "--disable-color", "-c", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@contextlib.asynccontextmanager
async def sing_box_client(content: bytes, directory: Path) -> AsyncIterator[Tunnel]:
    """A sing-box client on the body's own outbounds and final route. Its own way in is left out (it would take over the
    machine's network), and so is the rule that keeps private addresses local: the test's origin has one."""
    config = json.loads(content)
    port = choose_passing()
    config["log"] = {"level": "info"}
    config["inbounds"] = [{"type": "mixed", "tag": "mixed", "listen": "127.0.0.1", "listen_port": port}]
    config["route"]["rules"] = []
    file = directory / "client.json"
    file.write_text(json.dumps(config))
    child = spawn(
        [sing_box_program(), "run", "-c", str(file), "--disable-color"], name="sing-box", keep_stdin=True, stderr=PIPE
    )
    async with trio.open_nursery() as nursery:
        try:
            started = trio.Event()
            nursery.start_soon(_listen, child, started)
            with trio.fail_after(20):
                await started.wait()
            yield Tunnel(port)
        finally:
            with trio.CancelScope(shield=True):
                await child.stop(signal.SIGTERM, grace=5)
                await child.close()
            nursery.cancel_scope.cancel()


async def _listen(child: ChildProcess, started: trio.Event) -> None:
    assert child.stderr is not None
    said = b""
    while part := await child.stderr.receive_some(1 << 16):
        said = said[-(1 << 16) :] + part
        if b"sing-box started" in said:
            started.set()
    assert started.is_set(), said.decode(errors="replace")


def test_its_checker_takes_plain_and_tls_links_of_every_kind_of_host(tmp_path: Path) -> None:
    found = check(render(PLAIN, Format.SING_BOX).content, tmp_path)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_reality_link_is_refused_because_the_node_would_refuse_sing_box() -> None:
    with pytest.raises(LinkError, match="X25519MLKEM768"):
        render([PLAIN[0], REALITY], Format.SING_BOX)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=lists)
def test_its_checker_takes_any_name(links: list[VlessLink], tmp_path: Path) -> None:
    plain = [attrs.evolve(link, security="none", flow="", sni="", public_key="", fingerprint="") for link in links]
    found = check(render(plain, Format.SING_BOX).content, tmp_path)
    assert found.returncode == 0, found.stderr


@settings(deadline=None)  # a busy machine is not a failure
@given(lists)
def test_the_configuration_says_what_the_links_say(links: list[VlessLink]) -> None:
    links = [link for link in links if link.security != "reality"] or PLAIN[:1]
    config = json.loads(render(links, Format.SING_BOX).content)
    found = [outbound for outbound in config["outbounds"] if outbound["type"] == "vless"]
    assert [link_of(outbound) for outbound in found] == [attrs.evolve(link, name="") for link in links]
    tags = [outbound["tag"] for outbound in config["outbounds"]]
    assert len(set(tags)) == len(tags) and config["route"]["final"] in tags
    assert [outbound["tag"] for outbound in found] == labels(links)


def link_of(outbound: dict[str, Any]) -> VlessLink:
    """What sing-box understands under an outbound (its documentation: configuration/outbound/vless, shared/tls)."""
    tls = outbound.get("tls", {})
    alpn = tls.get("alpn")
    return VlessLink(
        UUID(outbound["uuid"]),
        outbound["server"],
        outbound["server_port"],
        security="tls" if tls else "none",
        flow=outbound.get("flow", ""),
        sni=tls.get("server_name", ""),
        fingerprint=tls.get("utls", {}).get("fingerprint", ""),
        extra=(("alpn", ",".join(alpn)),) if alpn else (),
    )


async def test_its_client_reaches_the_origin_with_the_body_while_the_key_is_wanted(
    agent: RunningAgent, origin: Origin, tmp_path: Path
) -> None:
    spec = key("customer")
    body = render([attrs.evolve(agent.link(spec), name="Мой узел")], Format.SING_BOX)
    async with agent.client() as client, sing_box_client(body.content, tmp_path) as tunnel:
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url)
        await client.put(spec)
        assert (await tunnel.fetch(origin.url)).body == PAGE
        await client.remove("customer", 1)
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url)


def test_what_sing_box_has_not_is_refused() -> None:
    with pytest.raises(LinkError, match="no VLESS encryption"):
        render([attrs.evolve(PLAIN[0], encryption="mlkem768x25519plus.native.0rtt.abc")], Format.SING_BOX)
