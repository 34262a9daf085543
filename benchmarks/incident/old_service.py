"""What the old system did, as a process: `python -m benchmarks.incident.old_service DSN NODE`.

A stand-in, written from the description of the old system and sharing no code with it or with ATLAS: one asyncio process with a
pool of fifteen connections, background tasks that all sleep for the same period, and these habits. Each stands in one function:

- a connection is held while the VPN is asked (`buy`, `activate`, `expire`, `renew`),
- whoever wants a connection waits without a limit (`connection`),
- the monitor of the pool gives its connection back without awaiting that (`monitor`),
- a list that failed is an empty list, and a key that is bought just now is a stranger (`reconcile`),
- the metrics take a lock that is not reentrant, and take it again while they hold it (`Metrics.removed`),
- the watchdog is a task on the loop that it watches (`watchdog`).

It prints what happens, a JSON object a line, for `benchmarks.incident.old`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from benchmarks.incident.night import BUY_EVERY, BUY_UNTIL, CONNECTIONS, PERIOD

PAGE = 100
_BEGAN = time.monotonic()
_waiting = 0


def say(kind: str, **facts: object) -> None:
    """One line to whoever looks on."""
    sys.stdout.write(json.dumps({"kind": kind, "at": time.monotonic() - _BEGAN, **facts}) + "\n")
    sys.stdout.flush()


class Metrics:
    """Counters behind a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # lock-ok: it is the defect
        self._counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        """One more of something."""
        with self._lock:  # lock-ok: it is the defect
            self._counts[name] = self._counts.get(name, 0) + 1

    def removed(self, keys: list[str]) -> None:
        """Keys that a pass removed."""
        with self._lock:  # lock-ok: it is the defect
            for _ in keys:
                self.count("removed")  # the same thread has the lock already, and waits for itself


class Node:
    """The client of the VPN node."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False)

    async def add(self, key: str) -> None:
        await self._http.post(f"/keys/{key}")

    async def remove(self, key: str) -> None:
        await self._http.delete(f"/keys/{key}")

    async def keys(self) -> set[str]:
        """All keys; none, if the list fails."""
        answer = await self._http.get("/keys")
        return set(answer.json()) if answer.is_success else set()


class Service:
    """The process."""

    def __init__(self, pool: asyncpg.Pool[Any], node: Node) -> None:
        self.pool, self.node, self.metrics = pool, node, Metrics()

    @asynccontextmanager
    async def connection(self, who: str) -> AsyncIterator[Any]:
        """A connection, however long that takes."""
        began = time.monotonic()
        say("wants", who=who)
        async with self.pool.acquire() as found:
            say("has", who=who, waited=time.monotonic() - began)
            yield found

    async def customers(self) -> None:
        """A customer buys every half second."""
        for number in range(int(BUY_UNTIL / BUY_EVERY)):
            self.begin(self.buy(f"customer {number}"))
            await asyncio.sleep(BUY_EVERY)

    async def buy(self, who: str) -> None:
        key = str(uuid.uuid4())
        say("pays", who=who, key=key)
        async with self.connection(who) as one, one.transaction():
            await one.execute("INSERT INTO subscriptions (uuid, ends_at) VALUES ($1, now() + interval '30 days')", key)
            await self.node.add(key)
        say("bought", who=who)

    async def activate(self) -> None:
        await self._each("activation", "pending", self.node.add)

    async def expire(self) -> None:
        await self._each("expiry", "ended", self.node.remove)

    async def renew(self) -> None:
        await self._each("renewal", "renewing", self.node.add)

    async def remind(self) -> None:
        await self._each("reminders", "reminding", self.node.add)

    async def _each(self, who: str, state: str, ask: Any) -> None:
        async with self.connection(who) as one, one.transaction():
            rows = await one.fetch(
                "SELECT id, uuid FROM subscriptions WHERE state = $1 LIMIT $2 FOR UPDATE", state, PAGE
            )
            for row in rows:
                await ask(row["uuid"])
                await one.execute("UPDATE subscriptions SET state = 'active' WHERE id = $1", row["id"])

    async def reconcile(self) -> None:
        async with self.connection("reconcile") as one:
            wanted = {row["uuid"] for row in await one.fetch("SELECT uuid FROM subscriptions")}
            there = await self.node.keys()
            missing, strangers = list(wanted - there)[:PAGE], list(there - wanted)[:PAGE]
            say("puts_back", keys=len(missing))
            await asyncio.gather(*(self.node.add(key) for key in missing), *map(self.node.remove, strangers))
        if strangers:
            self.metrics.removed(strangers)

    async def monitor(self) -> None:
        """Look whether the pool gives connections."""
        while True:
            one = await self.pool.acquire()
            await one.fetchval("SELECT 1")
            self.pool.release(one)  # the habit: nobody awaits it
            say("lent", connections=1)
            await asyncio.sleep(2.0)

    async def watchdog(self) -> None:
        """Say that the loop turns."""
        while True:
            say("beat", beat="event_loop")
            await asyncio.sleep(0.25)

    async def every(self, period: float, work: Any) -> None:
        while True:
            await asyncio.sleep(period)
            await work()
            say("beat", beat="worker")

    async def health(self) -> None:
        async with self.connection("health") as one:
            await one.fetchval("SELECT 1")
        say("beat", beat="healthcheck")

    def begin(self, work: Any) -> None:
        """Begin something that nobody waits for."""
        self._tasks = [*getattr(self, "_tasks", []), asyncio.ensure_future(work)]


async def main(dsn: str, node: str) -> None:
    """Serve until killed."""
    warnings.simplefilter("ignore", RuntimeWarning)  # "was never awaited": nobody read it then either
    pool = await asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS)
    service = Service(pool, Node(node))
    say("begins")
    for work in (service.activate, service.expire, service.renew, service.remind, service.reconcile):
        service.begin(service.every(PERIOD, work))
    service.begin(service.every(1.0, service.health))
    service.begin(service.monitor())
    service.begin(service.watchdog())
    await service.customers()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
