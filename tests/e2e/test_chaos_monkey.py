"""The whole tree, in this process, while the chaos monkey kills every actor of it at every message boundary.

PostgreSQL, the agent and Xray are real and die with their actors; payment providers and Telegram are simulated outside, over
real sockets. One round is everything that the service is for: see `chaos_town`.

The campaign has PARTS parts with an installation and a seed each, so that several workers share it. In each of them the whole
service works; every actor is a victim in one of them, and there every boundary of it must be hit.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from actors.keys.events import KeySettled
from db.embedded import EmbeddedSettings, embedded_dsn
from demo.providers import providers
from runtime import System
from runtime.config import load
from runtime.testing import ChaosMonkey
from tests.e2e.chaos_board import News
from tests.e2e.chaos_town import AT_ONCE, environment, town
from tests.e2e.stack import Stack, stack

SEED = int(os.environ.get("ATLAS_TEST_SEED", "20261123"))
PARTS = 2
KILLS = 150
"In all parts together."
KILLS_A_ROUND = 6
SPARED = (
    # Passed only when a look at a node falls into a change of its keys.
    *(f"reconcile/{point}" for point in ("differs", "compared", "put back", "restored", "removing", "removed")),
    # Passed only when the actor starts, so never again once nothing else kills it.
    *("agent.local/task:*", "pool.main/task:*", "pool.gateway/task:*", "node.local/task:reach the node"),
    *("gateway/task:*", "instance/task:*", "telegram_updates/task:*"),
    *("notifications/task:client", "payment_watcher/task:clients"),
    # Passed only when whoever received a payment has died before settling it.
    *("payment_watcher/understood", "payment_watcher/settled"),
    # Passed at its start, and then once in some minutes.
    "payment_watcher/read",
    # Passed only when the gateway dies amid a lease; those of pool.main die often enough.
    "pool.gateway/*:Down",
    # Replaces everything that a node has: asked only of one that cannot list its keys.
    "node.local/*:ReplaceKeys",
    # Errors and absences, which have tests of their own.
    *("canary/*:ProbeAgain", "reconcile/*:CompareAgain"),
    *(f"*/{point}" for point in ("failed", "postponed", "questioned", "doubted", "refunded")),
    "housekeeping/case opened",
)
ONE_CONNECTION = {"ATLAS__POOL__SIZE": "1", "ATLAS__POOL__RESERVED": "0"}
"So that requests for a lease have to queue, and the pool is asked by message."
WITHOUT_BOUNDARIES = {
    "postgres": "it handles nothing; it is killed at any moment instead",
    "admin": "it handles nothing; it is killed at any moment instead",
}
DECLINES = {"storefront": "the town buys by a front end, so that the bot is not the shop"}


EXPECTED = (
    *(f"activation/{phase}" for phase in ("claimed", "applied", "confirmed")),
    *(f"fast_expiry/{phase}" for phase in ("claimed", "applied", "confirmed")),
    *("gateway/stored", "gateway/settled", "telegram_updates/stored", "telegram_updates/taken"),
    *("payment_watcher/claimed", "payment_watcher/asked", "payment_watcher/looked"),
    *("auto_renewal/claimed", "auto_renewal/renewed", "reminders/queued", "instance/asked"),
    *("notifications/claimed", "notifications/sending", "notifications/sent", "notifications/settled"),
    "housekeeping/looked",
)


def fearless(here: Stack) -> Path:
    """The installation's configuration, in which nobody gives up, restarts are quick and the watchdog belongs to pytest."""
    path = here.home / "supervisor.toml"
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("give_up"):
            continue
        lines.append(line)
        if line.startswith("[actor."):
            lines += ['give_up = "never"', "backoff = { initial = 0.02, maximum = 0.1 }"]
    text = "\n".join(lines)
    path.write_text(f"{text}\n[watchdog]\nenabled = false\n")
    return path


@asynccontextmanager
async def running(here: Stack) -> AsyncIterator[System]:
    """The tree of the installation inside this process."""
    system = System(load(fearless(here), here.env))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(system.run)

        async def all_ready() -> bool:
            waited = [each for name, each in system.addresses.items() if name not in DECLINES]
            return len(waited) > 1 and all(each.readiness[0] for each in waited)

        with trio.fail_after(60):
            await News(system).until(all_ready)
        yield system
        system.stop("the campaign is over")


@pytest.mark.parametrize("part", range(PARTS))
async def test_every_actor_of_the_whole_tree_may_die_at_every_message_boundary(
    part: int, tell: Callable[[str], None]
) -> None:
    seed = SEED + part
    async with (
        providers() as outside,
        stack({**ONE_CONNECTION, **environment(outside)}, migrated=True) as here,
        running(here) as system,
    ):
        dsn = embedded_dsn(EmbeddedSettings(data_dir=Path(here.env["ATLAS__EMBEDDED__DATA_DIR"])))
        assert set(AT_ONCE) >= WITHOUT_BOUNDARIES.keys()
        victims = sorted(set(system.addresses) - WITHOUT_BOUNDARIES.keys() - DECLINES.keys())[part::PARTS]
        async with town(system, dsn, outside, seed) as people:
            monkey = ChaosMonkey(
                system,
                seed=seed,
                victims=victims,
                expect=[boundary for boundary in EXPECTED if boundary.partition("/")[0] in victims],
                spare=SPARED,
                at_once=KILLS_A_ROUND,
            )
            report = await monkey.run(people.round, kills=KILLS // PARTS, check=people.check)
        assert set(system.addresses) >= {boundary.partition("/")[0] for boundary in EXPECTED}
    settled = [event for event in system.services.events.recent() if isinstance(event, KeySettled)]
    assert settled
    assert {kill.boundary.actor for kill in report.kills} == set(victims)
    assert people.kills_at_once
    tell(f"{report} and {people.kills_at_once} at any moment; {people.purchases} purchases, {people.renewals} renewals")
