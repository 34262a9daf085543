"""Nodes with a customer, and what this customer is served about them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import attrs
import trio

from actors.gateway.subscription_links import answer_for
from actors.shop.settings import ShopSettings
from db.access.subscriptions import KeyView, NodeFacts, SubscriptionView
from db.keys.usage import CustomerTraffic
from tests.clients.network import NODE, Network, small_internet
from tests.clients.packets import PublicOrigin, serving_origin
from tests.vpn.agent.test_reality import DECOY, decoy_server
from tests.vpn.certificate import make_certificate
from vpn.agent.config.settings import TAG, AgentSettings, InboundSettings
from vpn.ports import choose_passing
from vpn.protocol import InboundFacts
from vpn.subscription import choose_format, connects_over_reality
from vpn.xray import x25519
from vpn.xray.api import XrayUser
from vpn.xray.config import Inbound, Reality, server_config
from vpn.xray.process import XrayProcess

NODES: Final = ("plain IPv4", "plain IPv6", "REALITY IPv4", "REALITY IPv6")
_SHORT_ID: Final = "34010e92"


@attrs.frozen
class World:
    """All of it. `nodes` has the public facts of each kind of node, as its agent tells them."""

    network: Network
    origin: PublicOrigin
    directory: Path
    nodes: Mapping[str, InboundFacts]
    uuid: UUID

    def view(self, node: str, state: str = "active", status: str = "active") -> SubscriptionView:
        """The customer's subscription, whose key is confirmed on this node if its status is `active`."""
        told = self.nodes[node]
        key = KeyView(
            key_id="customer",
            uuid=self.uuid,
            generation=1,
            status=status,
            activated_at=None,
            last_error=None,
            nodes=(NodeFacts("oslo", attrs.asdict(told), told.flow),) if status == "active" else (),
        )
        return SubscriptionView(
            id=1,
            telegram_id=1,
            tariff="basic",
            state=state,
            is_running=state == "active",
            source="purchase",
            expires_at=datetime(2030, 1, 1, tzinfo=UTC),
            auto_renew=False,
            key=key,
        )

    def served(self, view: SubscriptionView | None, program: str, suffix: str = "", language: str = "ru") -> bytes:
        """The body that a program of this name gets."""
        form = choose_format(program, "*/*", suffix)
        over_reality = bool(suffix) or connects_over_reality(program)
        nothing = CustomerTraffic(0, 0)
        answer = answer_for(ShopSettings(), form, "token", language, view, nothing, over_reality=over_reality)
        return bytes(answer.body)


@contextlib.asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """Two real nodes, plain and REALITY, each reached over IPv4 and IPv6, with one customer, for as long as the block lasts."""
    keys, uuid = x25519.generate(), uuid4()
    certificate = make_certificate(directory, DECOY)
    with small_internet() as network:
        async with serving_origin() as origin, decoy_server(certificate) as decoy, trio.open_nursery() as nursery:
            plain = InboundSettings(security="none")
            hidden = InboundSettings(security="reality", target=f"127.0.0.1:{decoy}", server_names=(DECOY,))
            nodes = {}
            for inbound, name in ((plain, "plain"), (hidden, "REALITY")):
                reality = Reality(keys.private, _SHORT_ID, hidden.target, hidden.server_names)
                settings = AgentSettings(directory, directory / "token", inbound=inbound)
                port = choose_passing()
                own = Inbound(TAG, "::", port, reality if inbound is hidden else None)
                users = [XrayUser("customer", uuid, settings.flow)]
                config = server_config(own, users, str(directory / f"{name}.sock"))
                process = XrayProcess(name=name, config=config, listening_on=f"port {port}")
                await nursery.start(lambda process=process, *, task_status: process.run(task_status=task_status))
                for version, host in zip(("IPv4", "IPv6"), NODE, strict=True):
                    told = settings.facts(port, keys.public, _SHORT_ID)
                    nodes[f"{name} {version}"] = attrs.evolve(told, host=host)
            yield World(network, origin, directory, nodes, uuid)
            nursery.cancel_scope.cancel()
