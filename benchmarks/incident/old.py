"""The old service through the night: its process, its node, its database, seen from outside."""

from __future__ import annotations

import json
import os
import sys
import time

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.filling import execute_script
from benchmarks.incident.night import BEATS, LIST_FAILS_UNTIL, NODE_SECONDS, PERIOD, SECONDS, Seen
from db.driver.session import open_session
from runtime.child_process import PIPE, ChildProcess, lines, spawn
from simulators.server import serving
from tests.e2e.stack import REPOSITORY

FILL = """
CREATE TABLE subscriptions (id bigserial PRIMARY KEY, uuid text NOT NULL UNIQUE, ends_at timestamptz NOT NULL,
                            state text NOT NULL DEFAULT 'active');
INSERT INTO subscriptions (uuid, ends_at, state)
SELECT gen_random_uuid()::text, now() + interval '20 days',
       CASE n % 100 WHEN 1 THEN 'ended' WHEN 2 THEN 'renewing' WHEN 3 THEN 'reminding' WHEN 4 THEN 'pending' ELSE 'active' END
FROM generate_series(1, {count}) n;
ANALYZE subscriptions;
"""


class OldNode:
    """The old node's interface: slow, and its list fails at first."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = set(keys)
        self.began = time.monotonic()
        self.taken: list[str] = []
        self.app = Starlette(
            routes=[Route("/keys", self.show), Route("/keys/{key}", self.change, methods=["POST", "DELETE"])]
        )

    async def show(self, _: Request) -> Response:
        """All keys."""
        if time.monotonic() - self.began < LIST_FAILS_UNTIL:
            return Response(status_code=502)
        await trio.sleep(NODE_SECONDS)
        return JSONResponse(sorted(self.keys))

    async def change(self, request: Request) -> Response:
        """Put or remove one."""
        key = request.path_params["key"]
        if request.method == "POST":
            self.keys.add(key)
        elif key in self.keys:
            self.taken.append(key)
            self.keys.discard(key)
        await trio.sleep(NODE_SECONDS)
        return JSONResponse({})


async def spend_the_night(dsn: str, subscriptions: int) -> Seen:
    """Fill a database of its own, and look on."""
    async with open_session(dsn, "atlas/incident") as session:
        await session.run("fill", execute_script, FILL.format(count=subscriptions), within=120.0)
        keys = [row["uuid"] for row in await session.run("keys", lambda tx: tx.fetch("SELECT uuid FROM subscriptions"))]
    node = OldNode(keys)
    async with serving(node.app) as url:
        node.began = time.monotonic()
        argv = [sys.executable, "-m", "benchmarks.incident.old_service", dsn, url]
        child = spawn(argv, name="the old service", env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=PIPE)
        try:
            return await _look_on(child, node, set(keys))
        finally:
            child.kill()
            await child.close()


async def _look_on(child: ChildProcess, node: OldNode, before: set[str]) -> Seen:
    seen, last = Seen(), dict.fromkeys(BEATS, 0.0)
    wants: dict[str, float] = {}
    began: float | None = None
    paid: dict[str, str] = {}
    bought: set[str] = set()
    lent = put_back = 0
    now = 0.0
    stdout = child.stdout
    assert stdout is not None

    async def read() -> None:
        nonlocal began, lent, put_back
        async for line in lines(stdout):
            said = json.loads(line)
            match said["kind"]:
                case "begins":
                    began = time.monotonic() - said["at"]
                    node.began = began
                case "wants":
                    wants[said["who"]] = said["at"]
                case "has":
                    seen.waits.append((wants.pop(said["who"]), said["waited"]))
                case "pays":
                    paid[said["who"]] = said["key"]
                case "bought":
                    bought.add(said["who"])
                case "puts_back":  # all of them are there: nothing was ever lost on this node
                    put_back += said["keys"]
                case "lent":
                    lent += 1
                case "beat":
                    last[said["beat"]] = said["at"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        # on a busy machine it comes to its end later: until the loop has stood for a while
        while began is None or now < SECONDS or (now - last["event_loop"] < PERIOD and now < 3 * SECONDS):
            if began is not None:
                now = time.monotonic() - began
                for beat, at in last.items():
                    seen.beats[beat].append((now, now - at))
            await trio.sleep(0.25)
        nursery.cancel_scope.cancel()
    seen.waits += [(at, now - at) for at in wants.values()]
    seen.in_vain = len(wants)
    seen.paid, seen.bought = len(paid), len([who for who in bought if paid[who] in node.keys])
    seen.lost_connections = lent
    seen.cut = len([key for key in node.taken if key not in before])
    seen.for_nothing = put_back
    quiet = now - last["event_loop"]
    seen.notes.append(
        f"the loop has stood still for {quiet:.0f} s; the watchdog is a task on it, and said nothing"
        if quiet > PERIOD
        else "the loop turns"
    )
    return seen
