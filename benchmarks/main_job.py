"""How long the main job takes on the embedded stack: start, payment → packets, revocation → cut and refused.

The group `main_job`, or `python -m benchmarks.main_job [--rounds N]`. Payment and revocation are timed from the moment the
operator's transaction has committed. Packets are a customer's own: a VLESS request on a fresh connection to the node, answered
by a page behind it. After the revocation one connection is watched until it ends, while new ones are tried until one is
refused.
"""

from __future__ import annotations

import argparse
import ipaddress
import struct
import sys
import time
from pathlib import Path
from uuid import UUID

import attrs
import trio
from rich.console import Console

from benchmarks import table
from benchmarks.result import Result, figure
from benchmarks.spread import spread
from db.access.subscriptions import get_subscription, mark_revoked
from db.billing.purchases import record_manual_purchase
from db.customers import add_customer
from db.driver.session import Session, open_session
from db.embedded import EmbeddedSettings, embedded_dsn
from db.money import Money
from db.tx import Tx
from tests.e2e.origin import Origin, origin
from tests.e2e.stack import stack

ROUNDS = 100
QUICK_ROUNDS = 3
PATIENCE = 10.0
RETRY = 0.002


@attrs.define
class Figures:
    """Seconds, one value a round."""

    first_start: float = 0.0
    """With initdb and all migrations."""
    second_start: float = 0.0
    payment_to_packets: list[float] = attrs.field(factory=list)
    revoke_to_cut: list[float] = attrs.field(factory=list)
    revoke_to_refused: list[float] = attrs.field(factory=list)


async def open_tunnel(node: tuple[str, int], key: UUID, site: Origin) -> trio.SocketStream | None:
    """One VLESS connection to the site's echo (plain, version 0, no add-ons), or None if the node refuses the key."""
    stream = await trio.open_tcp_stream(*node)
    address = ipaddress.IPv4Address("127.0.0.1").packed
    head = b"\x00" + key.bytes + b"\x00" + b"\x01" + struct.pack("!HB", site.port, 1) + address
    try:
        await stream.send_all(head + b"GET /stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        if await stream.receive_some():
            return stream
    except trio.BrokenResourceError:
        pass
    await stream.aclose()
    return None


async def until_cut(stream: trio.SocketStream) -> None:
    """Return when the other side has ended the connection."""
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass
    await stream.aclose()


async def one_round(session: Session, telegram_id: int, node: tuple[str, int], site: Origin, figures: Figures) -> None:
    """One customer: buys, gets through, is revoked, is cut."""

    async def purchase(tx: Tx) -> UUID:
        await add_customer(tx, telegram_id)
        await record_manual_purchase(tx, telegram_id, "basic", 30, "bench", f"c-{telegram_id}", Money(14900))
        found = await get_subscription(tx, telegram_id)
        assert found is not None
        assert found.key is not None
        return found.key.uuid

    async def revoke(tx: Tx) -> bool:
        return await mark_revoked(tx, telegram_id, actor="bench")

    key = await session.run("purchase", purchase, within=PATIENCE)
    paid_at = time.perf_counter()
    with trio.fail_after(PATIENCE):
        while (stream := await open_tunnel(node, key, site)) is None:  # noqa: ASYNC110 - what is measured is the customer trying
            await trio.sleep(RETRY)
    figures.payment_to_packets.append(time.perf_counter() - paid_at)
    await session.run("revoke", revoke, within=PATIENCE)
    revoked_at = time.perf_counter()

    async def watch() -> None:
        await until_cut(stream)
        figures.revoke_to_cut.append(time.perf_counter() - revoked_at)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            while (new := await open_tunnel(node, key, site)) is not None:
                await new.aclose()
                await trio.sleep(RETRY)
            figures.revoke_to_refused.append(time.perf_counter() - revoked_at)


async def scenario(rounds: int) -> Figures:
    """All of it, with so many customers one after the other."""
    figures = Figures()
    async with stack() as here:
        began = time.perf_counter()
        async with here.running():
            figures.first_start = time.perf_counter() - began
        began = time.perf_counter()
        async with here.running(), origin() as site:
            figures.second_start = time.perf_counter() - began
            dsn = embedded_dsn(EmbeddedSettings(data_dir=Path(here.env["ATLAS__EMBEDDED__DATA_DIR"])))
            node = await _customers_address(here.screen)
            async with open_session(dsn, "atlas/bench") as session:
                for number in range(1, rounds + 1):
                    await one_round(session, number, node, site, figures)
    return figures


async def _customers_address(screen: str) -> tuple[str, int]:
    """Where the embedded node listens for customers, as the start screen says."""
    host, _, port = screen.partition("customers ")[2].partition(" ")[0].partition(":")
    return host, int(port)


def results(figures: Figures) -> list[Result]:
    """As a report has them."""
    lines = [
        figure("start, the first time (makes the database)", figures.first_start, "s"),
        figure("start, the second time", figures.second_start, "s", at_most=5.0),
    ]
    for what, seconds in (
        ("payment recorded → the customer's packets pass", figures.payment_to_packets),
        ("revoked → the open connection is cut", figures.revoke_to_cut),
        ("revoked → new connections are refused", figures.revoke_to_refused),
    ):
        lines += spread(what, seconds, at_most=1000.0)
    return lines


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` does it with three customers."""
    return results(trio.run(scenario, QUICK_ROUNDS if quick else ROUNDS))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    found = results(trio.run(scenario, parser.parse_args().rounds))
    table.show({"main_job": found}, Console(width=None if sys.stdout.isatty() else table.WIDTH))
