"""The main job while its actors are killed: at every message boundary, in all three phases of activation, and at any moment.

Each round one customer buys while a handful of kills is armed. However the purchase was disturbed: one money-in, one journal,
one entitlement event, one active key, and the customer's packets pass.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from db.embedded import EmbeddedSettings, embedded_dsn
from runtime.control.client import call
from tests.e2e import socks
from tests.e2e.changes import Watch, watch
from tests.e2e.customer import client
from tests.e2e.origin import PAGE, Origin, origin
from tests.e2e.stack import Stack, stack
from tests.e2e.test_main_job import assert_bought_once, assert_money_holds

SEED = int(os.environ.get("ATLAS_TEST_SEED", "20261123"))
VICTIMS = ("activation", "pool.main", "node.local")
PHASES = ("claimed", "applied", "confirmed")
KILLS = 200
KILLS_A_ROUND = 10
MOST_ROUNDS = 120

Point = tuple[str, str]


@attrs.define
class Campaign:
    """What was aimed at, and what was hit."""

    here: Stack
    points: list[Point] = attrs.field(factory=list)
    at_once: Counter[str] = attrs.field(factory=Counter)

    async def control(self, command: str, **arguments: str | int) -> dict[str, object]:
        """Speak to the control socket as `atlas` does."""
        socket = Path(self.here.env["ATLAS__CONTROL__SOCKET"])
        found = await trio.to_thread.run_sync(lambda: call(socket, command, timeout=10.0, **arguments))
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
        assert {("activation", phase) for phase in PHASES} <= set(self.points), self.points

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
    """A campaign is hundreds of crashes in a minute: nobody gives up, and restarts do not queue up behind a backoff."""
    path = here.home / "supervisor.toml"
    text = path.read_text()
    for declared in ("[actor.activation]", '[actor."pool.main"]', "[actor.node]"):
        assert declared in text
        quick = f'{declared}\ngive_up = "never"\nbackoff = {{ initial = 0.02, maximum = 0.1 }}'
        text = text.replace(declared, quick, 1)
    path.write_text(text)


async def buy(here: Stack, telegram_id: int) -> None:
    await here.ok(
        *("buy", "--customer", str(telegram_id), "--tariff", "basic", "--days", "30"),
        *("--provider", "manual", "--charge", f"charge-{telegram_id}", "--amount", "14900"),
    )


async def assert_packets_pass(here: Stack, telegram_id: int, site: Origin) -> None:
    link = (await here.ok("subscription", str(telegram_id), "--json")).json["link"]
    async with client(here, str(link)) as proxy:
        assert await socks.fetch(proxy, site.port) == PAGE


async def disturbed_purchase(
    campaign: Campaign, seen: Watch, site: Origin, telegram_id: int, targets: list[Point], chance: random.Random
) -> None:
    """One purchase with these kills armed, and sometimes one more that comes when it comes."""
    here = campaign.here
    await here.ok("customer", "add", str(telegram_id))
    for actor, point in targets:
        await campaign.control("kill", name=actor, at=point, nth=chance.choice((1, 1, 2)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buy, here, telegram_id)
        if chance.random() < 0.5:
            nursery.start_soon(campaign.kill_now, chance.choice(VICTIMS))
    await seen.until_status(telegram_id, "active", within=90)
    await assert_bought_once(seen, telegram_id)
    await assert_packets_pass(here, telegram_id, site)


async def test_every_purchase_ends_once_whatever_is_killed_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    async with stack({"ATLAS__CHAOS__FAILPOINTS": "true"}) as here:
        harden(here)
        dsn = embedded_dsn(EmbeddedSettings(data_dir=Path(here.env["ATLAS__EMBEDDED__DATA_DIR"])))
        async with here.running(), origin() as site, watch(dsn) as seen:
            campaign = Campaign(here)
            await disturbed_purchase(campaign, seen, site, 1, [], chance)
            await campaign.learn()
            targets = deck(campaign.points, chance)
            rounds = 1
            fired: Counter[Point] = Counter()
            while True:
                fired = await campaign.fired()
                missed = [point for point in campaign.points if not fired[point]]
                if fired.total() + campaign.at_once.total() >= KILLS and not missed:
                    break
                assert rounds < MOST_ROUNDS, f"seed {SEED}: never hit in {rounds} rounds: {missed}"
                rounds += 1
                await disturbed_purchase(
                    campaign, seen, site, rounds, [next(targets) for _ in range(KILLS_A_ROUND)], chance
                )
            await campaign.control("disarm")
            await assert_money_holds(seen)
    by_phase = {phase: fired[("activation", phase)] for phase in PHASES}
    with capsys.disabled():
        kills = f"{fired.total()} kills at {len(fired)} points and {campaign.at_once.total()} at once"
        print(f"\nseed {SEED}: {kills}, {rounds} purchases; by phase of activation: {by_phase}")
        for (actor, point), count in sorted(fired.items()):
            print(f"  {actor:<12}{point:<28}{count}")
    assert all(by_phase.values()), by_phase
