"""Xray's configuration: what Xray would take and then misbehave with is refused before, by name."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import attrs
import pytest

from vpn.errors import XrayConfigRefused
from vpn.link import VlessLink
from vpn.protocol import FLOW_VISION
from vpn.xray import x25519
from vpn.xray.api import XrayUser
from vpn.xray.config import Inbound, Reality, check_inbound, check_users, client_config, server_config

KEYS = x25519.generate()
REALITY = Reality(KEYS.private, "a1b2c3d4", "www.example.org:443", ("www.example.org",))
PLAIN = Inbound("vless", "127.0.0.1", 10443)
OVER_REALITY = attrs.evolve(PLAIN, reality=REALITY)
ID = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")


def at(config: object, *path: str | int) -> object:
    """What stands at this path of a configuration."""
    for step in path:
        config = config[step]  # type: ignore[index]  # a wrong path is a failed test
    return config


@pytest.mark.parametrize(
    ("inbound", "named"),
    [
        (attrs.evolve(PLAIN, tag=""), "tag"),
        (attrs.evolve(PLAIN, protocol="trojan"), "protocol 'trojan'"),
        (attrs.evolve(PLAIN, port=0), "port 0"),
        (attrs.evolve(PLAIN, port=65536), "port 65536"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, private_key="short")), "private key"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, private_key=KEYS.private + "=!")), "private key"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, short_id="abc")), "short id"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, short_id="zz")), "short id"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, short_id="aa" * 9)), "short id"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, target="www.example.org")), "target"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, target="www.example.org:0")), "target"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, target=":443")), "target"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, server_names=())), "server names"),
        (attrs.evolve(PLAIN, reality=attrs.evolve(REALITY, server_names=("a.example", ""))), "server names"),
    ],
)
def test_an_unusable_inbound_is_refused_by_name(inbound: Inbound, named: str) -> None:
    with pytest.raises(XrayConfigRefused, match=named) as caught:
        check_inbound(inbound)
    assert KEYS.private not in str(caught.value)


OTHER_ROUTE = UUID(bytes=ID.bytes[:6] + b"\xff\xff" + ID.bytes[8:])


@pytest.mark.parametrize(
    ("users", "named"),
    [
        ([XrayUser("", ID)], "no name"),
        ([XrayUser("a", None)], "user a has no UUID"),
        ([XrayUser("a", ID, "bogus")], "user a: unknown flow"),
        ([XrayUser("a", ID, FLOW_VISION)], "user a: flow xtls-rprx-vision needs REALITY"),
        ([XrayUser("a", ID), XrayUser("A", uuid4())], "user A is there twice"),
        ([XrayUser("a", ID), XrayUser("b", ID)], "users a and b have the same UUID"),
        ([XrayUser("a", ID), XrayUser("b", OTHER_ROUTE)], "users a and b have the same UUID"),
    ],
)
def test_users_that_xray_would_take_and_then_not_serve_are_refused_by_name(users: list[XrayUser], named: str) -> None:
    with pytest.raises(XrayConfigRefused, match=named) as caught:
        server_config(PLAIN, users, "api.sock")
    assert str(ID) not in str(caught.value)


def test_users_of_a_good_list_are_all_in_the_configuration() -> None:
    users = [XrayUser("a", ID), XrayUser("b", uuid4(), FLOW_VISION)]
    check_users(OVER_REALITY, users)
    config = server_config(OVER_REALITY, users, "api.sock")
    assert at(config, "inbounds", 0, "settings", "clients") == [
        {"id": str(user.uuid), "email": user.email, "flow": user.flow} for user in users
    ]
    json.dumps(config)


def test_a_node_counts_by_user_and_offers_its_interface_on_a_unix_socket_only() -> None:
    config = server_config(PLAIN, [], "/run/node/api.sock")
    assert at(config, "api", "listen") == "/run/node/api.sock"
    assert at(config, "policy", "levels", "0") == {
        "statsUserUplink": True,
        "statsUserDownlink": True,
        "statsUserOnline": True,
    }
    assert at(config, "stats") == {}
    assert [at(config, "outbounds", number, "tag") for number in (0, 1)] == ["direct", "blocked"]


def test_private_networks_are_reached_only_if_allowed() -> None:
    assert at(server_config(PLAIN, [], "s"), "outbounds", 0, "settings") == {}
    assert at(server_config(PLAIN, [], "s", allow=["127.0.0.0/8"]), "outbounds", 0, "settings") == {
        "finalRules": [{"action": "allow", "ip": ["127.0.0.0/8"]}]
    }


def test_the_reality_of_node_and_client_belong_together() -> None:
    link = VlessLink(
        ID,
        "node.example",
        443,
        security="reality",
        flow=FLOW_VISION,
        sni="www.example.org",
        public_key=KEYS.public,
        short_id=REALITY.short_id,
    )
    server = at(server_config(OVER_REALITY, [], "s"), "inbounds", 0, "streamSettings", "realitySettings")
    client = at(client_config(link, 1080), "outbounds", 0, "streamSettings", "realitySettings")
    assert x25519.public_of(str(at(server, "privateKey"))) == at(client, "publicKey")
    assert at(client, "shortId") in at(server, "shortIds")  # type: ignore[operator]  # a list
    assert at(client, "serverName") in at(server, "serverNames")  # type: ignore[operator]  # a list
    assert at(server, "minClientVer") == "0.0.0", "unset, Xray 26.7 refuses every client that is no recent Xray"
    assert at(client, "fingerprint") == "chrome"
    assert at(client_config(link, 1080), "outbounds", 0, "settings", "vnext", 0, "users", 0, "flow") == FLOW_VISION


def test_a_client_listens_on_loopback_only_and_carries_mux_if_asked() -> None:
    config = client_config(VlessLink(ID, "127.0.0.1", 443), 1080, mux=8)
    assert at(config, "inbounds", 0, "listen") == "127.0.0.1"
    assert at(config, "inbounds", 0, "settings", "udp") is True
    assert at(config, "outbounds", 0, "mux") == {"enabled": True, "concurrency": 8}
    assert "mux" not in at(client_config(VlessLink(ID, "127.0.0.1", 443), 1080), "outbounds", 0)  # type: ignore[operator]  # a mapping


def test_a_client_refuses_a_network_it_does_not_speak() -> None:
    with pytest.raises(XrayConfigRefused, match="type=tcp only, the link says ws"):
        client_config(VlessLink(ID, "127.0.0.1", 443, network="ws"), 1080)
