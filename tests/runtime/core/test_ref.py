from __future__ import annotations

import trio

from runtime.core.address import Address
from runtime.core.ref import Monitor
from runtime.message import Down, Message
from runtime.testing.system import OnCrash, actor_system
from tests.runtime.messages import Scribe


def waiting(address: Address) -> list[Message]:
    """The control messages that wait, taken out."""
    found: list[Message] = []
    while address.mailbox.control_waiting:
        item = address.mailbox.take_urgent()
        assert isinstance(item, Message)
        found.append(item)
    return found


# S-411
async def test_it_reports_the_end_of_the_incarnation_that_ran_when_it_was_placed_once() -> None:
    async with actor_system() as system:
        watched = await system.start(Scribe(), name="watched", on_crash=OnCrash.RESTART)
        watcher = Address("watcher", Scribe, system.services)
        Monitor(watcher, watched.address).place()
        assert waiting(watcher) == []
        await system.kill(watched)
        await system.up(watched, incarnation=2)
        assert waiting(watcher) == [Down("watched", 1, "killed")]
        await system.kill(watched)
        assert waiting(watcher) == []


# S-411
async def test_placed_where_nothing_runs_it_reports_at_once() -> None:
    async with actor_system() as system:
        watched = Address("watched", Scribe, system.services)
        watcher = Address("watcher", Scribe, system.services)
        monitor = Monitor(watcher, watched)
        monitor.place()
        assert waiting(watcher) == [Down("watched", 0, "dead")]
        assert watched.monitors == {}
        await trio.lowlevel.checkpoint()


# S-412
async def test_cancelled_it_reports_nothing_and_leaves_nothing_behind() -> None:
    async with actor_system() as system:
        watched = await system.start(Scribe(), name="watched", on_crash=OnCrash.RESTART)
        watcher = Address("watcher", Scribe, system.services)
        monitor = Monitor(watcher, watched.address)
        monitor.place()
        monitor.cancel()
        monitor.cancel()
        assert watched.address.monitors == {}
        await system.kill(watched)
        assert waiting(watcher) == []


async def test_several_monitors_of_one_actor_each_report() -> None:
    async with actor_system() as system:
        watched = await system.start(Scribe(), name="watched", on_crash=OnCrash.STOP)
        watcher = Address("watcher", Scribe, system.services)
        for _ in range(2):
            Monitor(watcher, watched.address).place()
        await system.kill(watched)
        assert waiting(watcher) == [Down("watched", 1, "killed")] * 2
