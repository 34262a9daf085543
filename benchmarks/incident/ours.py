"""ATLAS through the same night: a whole installation, its node far away, its customers at the gateway, seen from outside."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

from benchmarks.alignment import DUE, FILL, periodic_workers, wake_workers
from benchmarks.filling import execute_script
from benchmarks.incident.night import (
    BUY_EVERY,
    BUY_UNTIL,
    CONNECTIONS,
    LOCK_AT,
    NODE_SECONDS,
    PERIOD,
    SECONDS,
    Seen,
)
from db.billing.purchases import record_manual_topup
from db.customers import add_customer
from db.driver.session import Session, open_session
from db.embedded import EmbeddedSettings, embedded_dsn
from db.money import Money
from db.tx import Row, Tx
from demo.front_end import Declined, FrontEnd
from simulators.slow_node import SlowNode, slow_node
from tests.e2e.stack import Stack, stack
from tests.ship.servers import free_port
from tests.vpn.agents import RunningAgent, running_agent

FIRST_CUSTOMER: Final = 1_000_000
PRICE: Final = 14_900
STALE: Final = {
    "event_loop_stale": 6,
    "worker_stale": 9,
    "healthcheck_stale": 9,
    "worker_critical": 12,
    "gil_timer": 25,
}
"""60, 90, 90 and 120 s by default: ten times as fast here."""
_DEFECT: Final = """
[actor.metrics_of_removals]
actor = "benchmarks.incident.lock_twice:MetricsOfRemovals"
"""
HEALED_WITHIN: Final = 300.0
"""How long after its restart everybody must have what they paid for, in seconds. A page of fifty keys waits for one or two
answers of that VPN, and a hundredth of all subscriptions waits as well."""
SKIP: Final = "SELECT setval(pg_get_serial_sequence('subscriptions', 'id'), {number})"
_LOOK: Final = 0.25
_BEYOND: Final = 60.0
"""What a wait longer than the last bound of the histogram counts as, in seconds."""


@attrs.define
class Looking:
    """What was read last, so that the next reading tells what is new."""

    counts: dict[tuple[str, float], float] = attrs.field(factory=dict)
    ages: dict[str, tuple[float, float]] = attrs.field(factory=dict)
    """By beat: when it was read, and how old it was then."""
    drift: float | None = None
    """Keys that reconciling had found different before the night."""


async def spend_the_night(home: Path, subscriptions: int) -> Seen:
    """Fill an installation, let the node have every key, and look on. `home` is a directory for the node."""
    secret = secrets.token_urlsafe(32)
    admin, gateway = free_port(), free_port()
    async with running_agent(home / "node") as agent, slow_node(agent.url) as node:
        extra = {
            "ATLAS__POOL__SIZE": str(CONNECTIONS),
            "ATLAS__ACTOR__POOL_MAIN__ARGS__WAKES": json.dumps(periodic_workers()),
            "ATLAS__NODES__LOCAL__URL": node.url,
            "ATLAS__NODES__LOCAL__TOKEN_FILE": str(home / "node.token"),
            "ATLAS__ADMIN__PORT": admin,
            "ATLAS__GATEWAY__PORT": gateway,
            "ATLAS__GATEWAY__RATE": "10000",
            "ATLAS__GATEWAY__BURST": "10000",
            "ATLAS__SHOP__KEYS": f"incident {secret}",
            "ATLAS__WATCHDOG__INTERVAL": "1",
            **{f"ATLAS__ACTOR__{name.upper()}__ARGS__INTERVAL": str(PERIOD) for name in periodic_workers()},
            **{f"ATLAS__WATCHDOG__{name.upper()}": str(value) for name, value in STALE.items()},
        }
        async with stack(extra) as here:
            with (here.home / "supervisor.toml").open("a") as file:
                file.write(_DEFECT)
            dsn = embedded_dsn(EmbeddedSettings(data_dir=Path(here.env["ATLAS__EMBEDDED__DATA_DIR"])))
            return await _Night(here, agent, node, dsn, admin, gateway, secret).spend(subscriptions)


@attrs.define(eq=False)
class _Night:
    here: Stack
    agent: RunningAgent
    node: SlowNode
    dsn: str
    admin: str
    gateway: str
    secret: str = attrs.field(repr=False)
    seen: Seen = attrs.field(factory=Seen)
    looking: Looking = attrs.field(factory=Looking)
    began: float = 0.0
    locked_at: float = LOCK_AT
    """When the message that takes the lock twice had been sent."""
    told: set[int] = attrs.field(factory=set)
    """Customers who were told that they have bought."""

    @property
    def now(self) -> float:
        """Seconds since the night began."""
        return time.monotonic() - self.began

    async def spend(self, subscriptions: int) -> Seen:
        """The whole night."""
        async with self.here.running() as first:
            async with open_session(self.dsn, "atlas/incident") as session:
                await self._prepare(session, subscriptions)
            self.node.delay = NODE_SECONDS
            self.node.list_fails = True
            self.began = time.monotonic()
            async with trio.open_nursery() as nursery:
                for task in (self._look_on, self._customers, self._play):
                    nursery.start_soon(task)
                with trio.move_on_after(SECONDS) as patience:
                    code = await first.wait()
                if not patience.cancelled_caught:
                    await self._go_on(self.now, code, self.here.log)
                nursery.cancel_scope.cancel()
        return self.seen

    async def _go_on(self, left: float, code: int, report: str) -> None:
        """What a service manager does: start it again. Looks on until the night is over."""
        place = re.search(r"lock_twice\.py:(\d+) (\S+)\n(?! *\S*/benchmarks)", report)
        where = f"benchmarks/incident/lock_twice.py:{place[1]} {place[2]}" if place else "nowhere"
        took = left - self.locked_at
        self.seen.notes.append(
            f"the watchdog named the place, {where}, and the process left with {code} after {took:.0f} s"
        )
        async with self.here.running():
            self.seen.notes.append(f"it served again {self.now - self.locked_at:.0f} s after the lock was taken twice")
            back = self.now
            await trio.sleep(max(0.0, SECONDS - back))
            async with open_session(self.dsn, "atlas/incident") as session:
                while self.now < back + HEALED_WITHIN:
                    have = len(await session.run("paid", _active))
                    if min(have, len(self.told)) == self.seen.paid:
                        break
                    await trio.sleep(_LOOK)
            healed = self.now
            await self._settle()
            if self.seen.bought == self.seen.paid:
                self.seen.notes.append(f"{healed - back:.0f} s later at most, everybody had what they paid for")

    async def _settle(self) -> None:
        """What is true now."""
        async with open_session(self.dsn, "atlas/incident") as session:
            rows = await session.run("paid", _active)
        async with self.agent.client() as client:
            there = {key.spec.key_id async for key in client.list_all()}
        keys = {row["number"]: row["key_id"] for row in rows}
        self.seen.bought = len([number for number in self.told if keys.get(number) in there])
        self.seen.cut = len([key for key in keys.values() if key not in there])
        pools = (await self.here.ok("leases", "--json")).json["pools"]
        assert isinstance(pools, list)
        self.seen.lost_connections = sum(
            holder["held_seconds"] > PERIOD for pool in pools for holder in pool["holders"]
        )

    async def _prepare(self, session: Session, subscriptions: int) -> None:
        await session.run("fill", execute_script, FILL.format(count=subscriptions), within=300.0)
        # what is made due goes by the number of the subscription: not those that are bought during this night
        await session.run("skip", execute_script, SKIP.format(number=-(-subscriptions // 100) * 100 + 10))
        for number in range(int(BUY_UNTIL / BUY_EVERY) + 2):
            await session.run("add", add_customer, FIRST_CUSTOMER + number)
            await session.run("fund", _fund, FIRST_CUSTOMER + number)
        for telegram_id in range(2, subscriptions, 100):
            await session.run("fund", _fund, telegram_id)
        await self.here.status()  # the first command takes longest
        async with self.agent.client() as client:
            with trio.fail_after(300):
                while (await client.state()).count < subscriptions * 0.99:
                    await session.run("wake", wake_workers, ["reconcile"])
                    await trio.sleep(1.0)

    async def _play(self) -> None:
        """Everything that happens to it in this night."""
        async with open_session(self.dsn, "atlas/incident") as session:
            await trio.sleep(PERIOD)
            await session.run("due", execute_script, DUE, within=60.0)
            await session.run("wake", wake_workers, periodic_workers())
            await trio.sleep(PERIOD)
            self.node.list_fails = False
            while self.now < LOCK_AT:
                await session.run("wake", wake_workers, periodic_workers())
                await trio.sleep(min(PERIOD, max(0.0, LOCK_AT - self.now)) or _LOOK)
        with trio.move_on_after(SECONDS):
            await self.here.atlas("tell", "metrics_of_removals", "RemoveKeys", '{"count": 1}')
            self.locked_at = self.now

    async def _customers(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as http, trio.open_nursery() as nursery:
            front_end = FrontEnd(http, f"http://127.0.0.1:{self.gateway}", "incident", self.secret)
            while self.now < BUY_UNTIL:
                nursery.start_soon(self._buy, front_end, self.seen.paid)
                self.seen.paid += 1
                await trio.sleep(BUY_EVERY)

    async def _buy(self, front_end: FrontEnd, number: int) -> None:
        """Buy, and ask again with the same key until there is an answer."""
        body: dict[str, object] = {"idempotency_key": f"night-{number}", "tariff": "basic", "days": 30, "price": PRICE}
        while True:
            try:
                await front_end.customer(FIRST_CUSTOMER + number, "POST", "/purchases", dict(body))
            except (httpx.HTTPError, Declined) as error:
                self.seen.refused[str(error)[:160]] += 1
                await trio.sleep(_LOOK)
            else:
                self.told.add(number)
                return

    async def _look_on(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=_LOOK) as http:
            while True:
                text = ""
                with contextlib.suppress(
                    httpx.HTTPError
                ):  # it stands still, or starts: the beats that were read last grow older
                    text = (await http.get(f"http://127.0.0.1:{self.admin}/metrics")).text
                self._read(text)
                await trio.sleep(_LOOK)

    def _read(self, metrics: str) -> None:
        now, looking = self.now, self.looking
        for labels, value in re.findall(r"^atlas_beat_age_seconds\{(.*)\} (\S+)$", metrics, re.MULTILINE):
            looking.ages[labels.partition('beat="')[2].rstrip('"')] = (now, float(value))
        for beat, (at, age) in looking.ages.items():
            self.seen.beats[beat].append((now, age + now - at))
        drift = [
            float(value) for value in re.findall(r"^atlas_reconcile_drift_total\{.*\} (\S+)$", metrics, re.MULTILINE)
        ]
        if self.node.list_fails and drift:
            looking.drift = sum(drift) if looking.drift is None else looking.drift
            self.seen.for_nothing = int(sum(drift) - looking.drift)
        totals: dict[tuple[str, float], float] = {}
        for labels, value in re.findall(r"^atlas_lease_wait_seconds_bucket\{(.*)\} (\S+)$", metrics, re.MULTILINE):
            bound = labels.partition('le="')[2].partition('"')[0]
            series = re.sub(r',?le="[^"]*"', "", labels)
            totals[series, _BEYOND if bound == "+Inf" else float(bound)] = float(value)
        below: dict[str, float] = {}
        for (series, bound), count in sorted(totals.items()):
            new = count - looking.counts.get((series, bound), 0.0)
            new = count if new < 0 else new  # another process counts from zero
            self.seen.waits += [(now, bound)] * max(0, int(new - below.get(series, 0.0)))
            below[series] = new
        looking.counts.update(totals)


async def _fund(tx: Tx, telegram_id: int) -> None:
    await record_manual_topup(tx, telegram_id, "manual", f"f{telegram_id}", Money(PRICE + 5_100), actor="incident")


async def _active(tx: Tx) -> Sequence[Row]:
    return await tx.fetch(
        """
        SELECT c.telegram_id - $1::bigint AS number, k.key_id FROM customers c JOIN subscriptions s ON s.customer_id = c.id
        JOIN vpn_keys k ON k.subscription_id = s.id
        WHERE c.telegram_id >= $1 AND k.activation_status = 'active'
        """,
        FIRST_CUSTOMER,
    )
