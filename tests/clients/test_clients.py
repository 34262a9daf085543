"""Customers' programs connect with what they are served, and without a right to access nothing of them gets out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from tests.clients import programs, table
from tests.clients.packets import ANSWERED, NOTHING, Kind, Phone
from tests.clients.table import NO_ACCESS, NOT_CONNECTED, NOTHING_PASSES, ROWS, YES
from tests.clients.world import NODES, World, world
from vpn.link import REALITY_FINGERPRINTS, VlessLink, link_for
from vpn.protocol import KeySpec
from vpn.subscription import Format, render

pytestmark = [pytest.mark.system, pytest.mark.root]

UNSERVED = ("ios", "edge", "android", "360", "qq")
"""Names that Xray has for browsers that do not offer X25519MLKEM768."""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """Nodes, an origin and a phone."""
    if not can_unshare():
        pytest.skip("needs CAP_SYS_ADMIN, to make network namespaces")
    async with world(tmp_path) as made:
        yield made


def can_unshare() -> bool:
    """Whether this process may make network namespaces."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "--net", "true"], check=False).returncode == 0


async def test_the_phone_reaches_the_origin_without_a_vpn_and_is_seen_to(here: World) -> None:
    seen = await Phone(here.network, here.origin).send_all()
    assert {source for source in seen.values() if source} == {"10.77.0.2", "fd77::2"} and len(seen) == len(Kind)


async def test_every_client_connects_on_every_form_as_served_and_the_page_says_so(here: World) -> None:
    measured = await table.measure(here)
    for row in ROWS:
        cells = measured[row.client, row.form]
        for node in NODES:
            wanted = NOTHING_PASSES if node in row.is_dead_end else NOT_CONNECTED if node in row.is_lost else YES
            assert cells[node] == wanted, (row.client, row.form, node)
        assert cells[NO_ACCESS] == NOTHING_PASSES, (row.client, row.form)
    assert table.on_the_page() == table.written(measured), (
        "docs/clients.md is not what was measured; write it anew: python -m tests.clients.table"
    )


async def test_reality_serves_exactly_the_fingerprints_that_links_and_settings_may_have(here: World) -> None:
    for fingerprint in (*REALITY_FINGERPRINTS, *UNSERVED):
        link = attrs.evolve(reality_link(here), fingerprint=fingerprint)
        within = ANSWERED if fingerprint in REALITY_FINGERPRINTS else NOTHING
        async with programs.xray(here, render([link], Format.XRAY).content) as phone:
            assert (await phone.send(Kind.TCP4, within) is not None) == (fingerprint in REALITY_FINGERPRINTS), (
                fingerprint
            )


async def test_a_clash_form_connects_whatever_fingerprint_the_link_has(here: World) -> None:
    link = attrs.evolve(reality_link(here), fingerprint="firefox")
    async with programs.mihomo(here, render([link], Format.CLASH).content) as phone:
        assert await phone.send(Kind.TCP6) == Kind.TCP6.host


def reality_link(here: World) -> VlessLink:
    """The customer's link to the REALITY node."""
    facts = here.nodes["REALITY IPv4"]
    return link_for(KeySpec("customer", here.uuid, flow=facts.flow), facts)
