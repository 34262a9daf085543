from __future__ import annotations

import pytest
import trio
import trio.testing

from runtime.child import IDLE, Exit, ExitReason, StopCause, StopReason
from runtime.core.actor import Actor
from runtime.core.address import Address
from runtime.core.ref import AddressState
from runtime.core.services import Services
from runtime.errors import ActorDead
from runtime.message import Delivery, Message, Suspend
from runtime.testing.system import OnCrash, actor_system
from tests.runtime.messages import AskOther, Boom, GetNotes, Note, Scribe, Wait, World


async def end(address: Address, incarnation: int, reason: ExitReason) -> None:
    """What a supervisor does at the end of an incarnation."""
    address.on_exit(Exit(address.name, incarnation, reason, None, None, 0.0))


async def test_it_is_shown_who_handles_what_since_when_and_for_whom_it_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        far = await system.start(Scribe(world), name="far")
        near = await system.start(Scribe(), name="near")
        nursery.start_soon(lambda: near.ask(AskOther(far, Wait(), within=60), within=60))
        await world.entered.wait()
        await trio.sleep(3)
        near.tell(Note(1))
        await trio.sleep(2)
        shown = near.address.inspect()
        assert {key: shown[key] for key in ("handling", "handling_for", "waiting_on", "depth", "oldest_age")} == {
            "handling": "AskOther",
            "handling_for": 5.0,
            "waiting_on": ["far"],
            "depth": 1,
            "oldest_age": 2.0,
        }
        assert near.address.last_activity().handling_since == trio.current_time() - 5
        world.gate.set()
    shown = near.address.inspect()
    assert (shown["handling"], shown["waiting_on"], shown["last_message"]) == (None, [], "on_stop")


async def test_the_stack_shows_where_a_handler_waits() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        names = [line.rsplit(" ", 1)[1] for line in ref.address.stack()]
        assert names.index("serve") < names.index("_answer") < names.index("wait")
        assert any("messages.py:" in line for line in ref.address.stack())
        world.gate.set()
    assert ref.address.stack() == []


async def test_an_address_that_never_ran_is_idle_and_keeps_what_it_gets() -> None:
    address = Address("a", Scribe, Services())
    assert (address.state, address.last_activity(), address.is_up) == (AddressState.NEW, IDLE, False)
    assert address.ref.tell(Note(1)) is Delivery.ACCEPTED
    address.on_final("given up before it ever ran")
    assert address.ref.tell(Note(2)) is Delivery.DEAD
    letters = address.services.deadletters.recent()
    assert [(letter.message, letter.reason) for letter in letters] == [
        ("Note", "the actor is dead: given up before it ever ran")
    ]


async def test_a_parked_actor_is_dead_to_everybody_until_it_runs_again() -> None:
    world = World()
    address = Address("a", lambda: Scribe(world), Services())
    async with trio.open_nursery() as nursery:
        await nursery.start(address.run, 1)
        address.ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        address.ref.tell(Note(1))
        address.request_stop(StopReason(StopCause.TERMINATED))
    await end(address, 1, ExitReason.CRASHED)
    address.on_parked("gave up")
    assert world.undelivered == [(Note(1),)]
    assert (address.state, address.ref.tell(Note(2)), address.readiness) == (
        AddressState.PARKED,
        Delivery.DEAD,
        (False, "parked"),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(address.run, 2)
        assert address.ref.tell(Note(3)) is Delivery.ACCEPTED
        assert await address.ref.ask(GetNotes(), within=1) == (3,)
        address.request_stop(StopReason(StopCause.TERMINATED))


async def test_an_instance_whose_on_undelivered_raises_harms_nobody() -> None:
    class Careless(Scribe):
        def on_undelivered(self, messages: object, reason: str) -> None:
            raise RuntimeError("careless")

    async with actor_system() as system:
        ref = await system.start(Careless())
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        ref.tell(Note(1))
        await system.stop(ref)
        reasons = [letter.reason for letter in system.services.deadletters.recent()]
        assert reasons == ["the actor is dead: shutdown", "on_undelivered raised RuntimeError: careless"]


async def test_a_constructor_that_raises_is_a_failed_start_and_bounces_nobody_for_ever() -> None:
    broken = True

    def make() -> Actor:
        if broken:
            raise RuntimeError("no such file")
        return Scribe()

    address = Address("a", make, Services())
    address.ref.tell(Note(1))
    try:
        await address.run(1, task_status=trio.TASK_STATUS_IGNORED)
    except RuntimeError:
        await end(address, 1, ExitReason.START_FAILED)
    broken = False
    async with trio.open_nursery() as nursery:
        await nursery.start(address.run, 2)
        assert await address.ref.ask(GetNotes(), within=1) == (1,)
        address.request_stop(StopReason(StopCause.TERMINATED))


async def test_an_actor_that_crashes_amid_a_drain_accepts_again_when_it_is_restarted() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), on_crash=OnCrash.RESTART)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        ref.tell(Boom())
        ref.address.request_drain()
        assert ref.tell(Note(1)) is Delivery.DEAD
        with pytest.raises(ActorDead, match="is draining"):
            await ref.ask(GetNotes(), within=1)
        world.gate.set()
        await system.up(ref, 2)
        assert ref.tell(Note(2)) is Delivery.ACCEPTED
        assert await ref.ask(GetNotes(), within=1) == (2,)


async def test_leftovers_name_types_and_reasons_and_never_contents() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        messages: list[Message] = [Note(424242), Boom()]
        for message in messages:
            ref.tell(message)
        await system.stop(ref)
        letters = system.services.deadletters.recent()
        assert [letter.message for letter in letters] == ["Note", "Boom"]
        assert "424242" not in repr(letters)


async def test_what_an_actor_handles_can_be_asked_of_its_address_while_it_runs_and_after() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), on_crash=OnCrash.RESTART)
        assert Note in ref.address.handled
        await system.stop(ref)
        assert list(ref.address.handled) == []
        assert list(Address("new", Scribe, system.services).handled) == []
