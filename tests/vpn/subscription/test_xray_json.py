"""Xray's own form: a real Xray started from the body reaches the origin."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given, settings

from tests.fork_server import ForkServer
from tests.vpn.agent.test_reality import reality_agent
from tests.vpn.agents import RunningAgent, key
from tests.vpn.origin import PAGE, Origin
from tests.vpn.subscription.samples import lists
from vpn.errors import TunnelError
from vpn.link import VlessLink
from vpn.ports import choose_passing
from vpn.protocol import FLOW_VISION, KeySpec
from vpn.subscription import Format, render
from vpn.subscription.entries import labels
from vpn.xray.process import XrayProcess
from vpn.xray.tunnel import Tunnel


@settings(deadline=None)  # a busy machine is not a failure
@given(lists)
def test_there_is_one_whole_configuration_for_each_link(links: list[VlessLink]) -> None:
    configs = json.loads(render(links, Format.XRAY).content)
    assert [config["remarks"] for config in configs] == labels(links)
    for config, link in zip(configs, links, strict=True):
        [server] = config["outbounds"][0]["settings"]["vnext"]
        assert (server["address"], server["port"]) == (link.host, link.port)
        assert server["users"][0]["id"] == str(link.uuid)
        assert config["outbounds"][0]["streamSettings"]["security"] == link.security


async def _use(agent: RunningAgent, spec: KeySpec, origin: Origin) -> None:
    [config] = json.loads(render([attrs.evolve(agent.link(spec), name="Узел 1")], Format.XRAY).content)
    port = choose_passing()  # the one that programs use may be taken on this machine
    config["inbounds"][0]["port"] = port
    xray = XrayProcess(name="customer", config=config, listening_on=f"127.0.0.1:{port}")
    tunnel = Tunnel(port)
    async with agent.client() as client, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: xray.run(task_status=task_status))
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url, within=30)
        await client.put(spec)
        assert (await tunnel.fetch(origin.url, within=30)).body == PAGE
        nursery.cancel_scope.cancel()


async def test_a_real_xray_reaches_the_origin_with_the_body(agent: RunningAgent, origin: Origin) -> None:
    await _use(agent, key("customer"), origin)


async def test_a_real_xray_reaches_the_origin_with_reality_and_vision(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    async with reality_agent(tmp_path, fork_server) as agent:
        await _use(agent, key("customer", flow=FLOW_VISION), origin)
