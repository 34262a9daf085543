"""The main job while its actors are killed: at every message boundary, in all three phases of both key workers, at any moment.

Each round one customer buys and is revoked while kills are armed. However the purchase was disturbed: one money-in, one
journal, one entitlement event, one active key, and the customer's packets pass. However the revocation was disturbed: the
open connection is cut and a new one is refused. In the end the node itself has the last customer's key and no other.

The campaign has PARTS parts with an installation and a seed each, so that several workers share it. Every part aims at all
points; its share of the kills, its share of the points and all six phases must be hit before it ends, so that together
nothing is left out.
"""

from __future__ import annotations

import contextlib
import os
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from db.embedded import EmbeddedSettings, embedded_dsn, layout_of
from runtime.config import Secret
from runtime.control import call
from tests.e2e import socks
from tests.e2e.changes import Watch, watch
from tests.e2e.customer import client
from tests.e2e.origin import PAGE, Origin, origin
from tests.e2e.stack import Stack, stack
from tests.e2e.test_main_job import assert_bought_once, assert_money_holds
from vpn.node.client import AgentClient

SEED = int(os.environ.get("ATLAS_TEST_SEED", "20261123"))
VICTIMS = ("activation", "fast_expiry", "pool.main", "node.local")
WORKERS = ("activation", "fast_expiry")
PHASES = ("claimed", "applied", "confirmed")
PARTS = 4
KILLS = 200
"In all parts together."
KILLS_EACH = 6
"Armed for a purchase, and as many for a revocation."
MOST_ROUNDS = 120 // PARTS
"Of one part."

Point = tuple[str, str]
EVERY_PHASE: Final[set[Point]] = {(worker, phase) for worker in WORKERS for phase in PHASES}


@attrs.define
class Campaign:
    """What was aimed at, and what was hit."""

    here: Stack
    part: int
    points: list[Point] = attrs.field(factory=list)
    at_once: Counter[str] = attrs.field(factory=Counter)

    @property
    def owed(self) -> list[Point]:
        """What this part must hit: every phase, and of the other points those that fall to it, whatever the others saw."""
        return [
            point
            for point in self.points
            if point in EVERY_PHASE or zlib.crc32("/".join(point).encode()) % PARTS == self.part
        ]

    async def control(self, command: str, **arguments: str | int) -> dict[str, object]:
        """Speak to the control socket as `atlas` does."""
        socket = Path(self.here.env["ATLAS__CONTROL__SOCKET"])
        found = await trio.to_thread.run_sync(
            lambda: call(socket, command, timeout=10.0, token=None, config=None, **arguments)
        )
        assert isinstance(found, dict)
        return found

    async def report(self) -> list[dict[str, object]]:
        """Every failpoint of a victim that was visited or armed."""
        points = (await self.control("failpoints"))["points"]
        assert isinstance(points, list)
        return [point for point in points if point["actor"] in VICTIMS]

    async def learn(self) -> None:
        """Take every boundary that was passed so far as a target."""
        self.points = [(str(point["actor"]), str(point["point"])) for point in await self.report()]
        assert set(self.points) >= EVERY_PHASE, self.points

    async def fired(self) -> Counter[Point]:
        """How often each failpoint has killed."""
        return Counter(
            {(str(point["actor"]), str(point["point"])): int(str(point["fired"])) for point in await self.report()}
        )

    async def kill_now(self, victim: str) -> None:
        """`atlas kill`, as a process of its own: it strikes whenever it gets there."""
        outcome = await self.here.atlas("kill", victim)
        if outcome.status == 0:
            self.at_once[victim] += 1
        else:  # it was between two lives at that moment
            assert "not running" in outcome.stderr or "restarting" in outcome.stderr or "waiting" in outcome.stderr


def deck(points: list[Point], chance: random.Random) -> Iterator[Point]:
    """All points in random order, again and again."""
    while True:
        shuffled = points[:]
        chance.shuffle(shuffled)
        yield from shuffled


def harden(here: Stack) -> None:
    """A campaign is hundreds of kills in a minute: restarts do not queue up behind a backoff. Giving up is as it is shipped."""
    path = here.home / "supervisor.toml"
    text = path.read_text()
    for declared in ("[actor.activation]", "[actor.fast_expiry]", '[actor."pool.main"]', "[actor.node]"):
        assert declared in text
        quick = f"{declared}\nbackoff = {{ initial = 0.02, maximum = 0.1 }}"
        text = text.replace(declared, quick, 1)
    path.write_text(text)


async def buy(here: Stack, telegram_id: int) -> None:
    await here.ok(
        *("buy", "--customer", str(telegram_id), "--tariff", "basic", "--days", "30"),
        *("--provider", "manual", "--charge", f"charge-{telegram_id}", "--amount", "14900"),
    )


@attrs.define
class Customer:
    """A customer who is connected: a client made from the printed link, with one connection that stays open."""

    telegram_id: int
    proxy: int
    open: trio.SocketStream

    async def until_cut(self) -> None:
        """Return when the open connection has ended."""
        with contextlib.suppress(trio.BrokenResourceError):
            while await self.open.receive_some():
                pass


@asynccontextmanager
async def connected(here: Stack, telegram_id: int, site: Origin) -> AsyncIterator[Customer]:
    """The customer's packets pass, or this raises."""
    link = (await here.ok("subscription", str(telegram_id), "--json")).json["link"]
    async with client(here, str(link)) as proxy:
        assert await socks.fetch(proxy, site.port) == PAGE
        stream = await socks.connect(proxy, "127.0.0.1", site.port)
        async with stream:
            await stream.send_all(b"GET /stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nping")
            assert b"200 OK" in await stream.receive_some()
            yield Customer(telegram_id, proxy, stream)


async def disturbed(
    campaign: Campaign, targets: list[Point], chance: random.Random, work: Callable[[], Awaitable[object]]
) -> None:
    """Do it with these kills armed, and sometimes one more that comes when it comes."""
    for actor, point in targets:
        await campaign.control("kill", name=actor, at=point, nth=chance.choice((1, 1, 2)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        if chance.random() < 0.5:
            nursery.start_soon(campaign.kill_now, chance.choice(VICTIMS))


async def disturbed_purchase(
    campaign: Campaign, seen: Watch, telegram_id: int, targets: list[Point], chance: random.Random
) -> None:
    """One purchase: it is live once, and booked once."""
    here = campaign.here
    await here.ok("customer", "add", str(telegram_id))
    await disturbed(campaign, targets, chance, lambda: buy(here, telegram_id))
    await seen.until_status(telegram_id, "active", within=90)
    await assert_bought_once(seen, telegram_id)


async def disturbed_revocation(
    campaign: Campaign, seen: Watch, site: Origin, customer: Customer, targets: list[Point], chance: random.Random
) -> None:
    """One revocation: what was open is cut, and nothing new gets through."""
    here = campaign.here
    await disturbed(campaign, targets, chance, lambda: here.ok("revoke", str(customer.telegram_id)))
    with trio.fail_after(90):
        await customer.until_cut()
    await seen.until_status(customer.telegram_id, "removed", within=90)
    with pytest.raises(socks.Refused):
        await socks.fetch(customer.proxy, site.port)


async def canary_keys(seen: Watch) -> set[str]:
    """The node's probe has a key of its own."""
    return {str(row["key_id"]) for row in await seen.rows("SELECT key_id FROM canary_keys")}


async def keys_on_the_node(campaign: Campaign) -> set[str]:
    """What the node's agent itself has, asked as an outsider with its token."""
    children = (await campaign.control("status"))["children"]
    assert isinstance(children, list)
    url = next(child["facts"]["listening"] for child in children if child["name"] == "agent.local")
    settings = EmbeddedSettings(data_dir=Path(campaign.here.env["ATLAS__EMBEDDED__DATA_DIR"]))
    token = (layout_of(settings).node / "local" / "token").read_text().strip()
    async with AgentClient("local", url, Secret(token)) as node:
        return {key.spec.key_id async for key in node.list_all()}


@pytest.mark.parametrize("part", range(PARTS))
async def test_every_purchase_ends_once_whatever_is_killed_meanwhile(part: int, tell: Callable[[str], None]) -> None:
    seed = SEED + part
    chance = random.Random(seed)
    async with stack({"ATLAS__CHAOS__FAILPOINTS": "true"}, migrated=True) as here:
        harden(here)
        dsn = embedded_dsn(EmbeddedSettings(data_dir=Path(here.env["ATLAS__EMBEDDED__DATA_DIR"])))
        async with here.running(), origin() as site, watch(dsn) as seen:
            campaign = Campaign(here, part)
            targets: Iterator[Point] = iter(())
            fired: Counter[Point] = Counter()
            rounds = 0
            while True:
                rounds += 1
                await disturbed_purchase(campaign, seen, rounds, list(islice(targets, KILLS_EACH)), chance)
                async with connected(here, rounds, site) as customer:
                    missed = [point for point in campaign.owed if not fired[point]]
                    if fired.total() + campaign.at_once.total() >= KILLS // PARTS and not missed:
                        break
                    assert rounds < MOST_ROUNDS, f"seed {seed}: never hit in {rounds} rounds: {missed}"
                    aims = list(islice(targets, KILLS_EACH))
                    await disturbed_revocation(campaign, seen, site, customer, aims, chance)
                if rounds == 1:  # it was left alone
                    await campaign.learn()
                    targets = deck(campaign.points, chance)
                fired = await campaign.fired()
            await campaign.control("disarm")
            await assert_money_holds(seen)
            wanted = await seen.rows("SELECT key_id FROM vpn_keys WHERE activation_status = 'active'")
            assert await keys_on_the_node(campaign) - await canary_keys(seen) == {str(row["key_id"]) for row in wanted}
            assert len(wanted) == 1
    by_phase = {f"{worker}/{phase}": fired[(worker, phase)] for worker in WORKERS for phase in PHASES}
    kills = f"{fired.total()} kills at {len(fired)} points and {campaign.at_once.total()} at once"
    tell(f"seed {seed}: {kills}, {rounds} purchases, {rounds - 1} revocations; by phase: {by_phase}")
    tell(", ".join(f"{actor} {point} {count}" for (actor, point), count in sorted(fired.items())))
    assert all(by_phase.values()), by_phase
