"""Promises about draining and the control socket that no other test proves."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from runtime.child import ChildSpec, StopCause, StopReason
from runtime.control.protocol import ControlError
from runtime.core.actor import handler
from runtime.core.drain import DrainingAddress
from runtime.core.services import Services
from runtime.message import Delivery, Resume, Suspend
from runtime.supervision.supervisor import Supervisor
from tests.runtime.atlas_process import AtlasProcess, atlas, short_directory, write_config
from tests.runtime.messages import Note, Scribe, World

Launch = Callable[..., AtlasProcess]

ONE = """
[actor.echo]
actor = "{actors}:Echo"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def launch(place: Path) -> Iterator[Launch]:
    with contextlib.ExitStack() as stack:

        def start(text: str, *, more: str = "") -> AtlasProcess:
            write_config(place, text, more=more)
            process = AtlasProcess(place)
            stack.callback(process.close)
            process.until("next:")
            return process

        yield start


def child(process: AtlasProcess, name: str) -> dict[str, Any]:
    found: Any = process.call("status")
    child: dict[str, Any] = next(each for each in found["children"] if each["name"] == name)
    return child


@attrs.define(eq=False)
class Slow(Scribe):
    """Takes a minute for each note."""

    @handler
    async def note(self, message: Note) -> None:
        with trio.move_on_after(60.0):
            await trio.sleep_forever()
        self._note(message.number)


async def run(supervisor: Supervisor, *, task_status: trio.TaskStatus[None]) -> None:
    await supervisor.run(task_status=task_status)


# S-608
async def test_a_drain_refuses_new_messages_and_handles_those_that_were_accepted() -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        address = DrainingAddress("scribe", lambda: Scribe(world), Services())
        address.start_soon, address.drains = nursery.start_soon, True
        supervisor = Supervisor("top", [ChildSpec("scribe", lambda: address)])
        await nursery.start(run, supervisor)
        address.ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        assert {address.ref.tell(Note(number)) for number in range(3)} == {Delivery.ACCEPTED}
        nursery.start_soon(supervisor.terminate_child, "scribe")
        await trio.testing.wait_all_tasks_blocked()
        assert address.ref.tell(Note(9)) is Delivery.DEAD
        address.ref.tell(Resume())
        await trio.testing.wait_all_tasks_blocked()
        assert world.notes == [0, 1, 2]
        assert address.ref.tell(Note(9)) is Delivery.DEAD
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN))
        nursery.cancel_scope.cancel()
    assert world.undelivered == []


# S-608
async def test_a_drain_gives_up_when_half_of_the_time_to_stop_is_used(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    world = World()
    async with trio.open_nursery() as nursery:
        address = DrainingAddress("slow", lambda: Slow(world), Services())
        address.start_soon, address.drains = nursery.start_soon, True
        supervisor = Supervisor("top", [ChildSpec("slow", lambda: address, shutdown=300.0)])
        await nursery.start(run, supervisor)
        for number in range(10):
            address.ref.tell(Note(number))
        began = trio.current_time()
        await supervisor.terminate_child("slow")
        assert trio.current_time() - began == pytest.approx(180.0)
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN))
    assert world.notes == [0, 1, 2]
    assert [len(messages) for messages in world.undelivered] == [7]
    assert [reason.cause for reason in world.stops] == [StopCause.TERMINATED]


# S-609
async def test_a_stop_for_a_restart_does_not_drain() -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        address = DrainingAddress("scribe", lambda: Scribe(world), Services())
        address.start_soon, address.drains = nursery.start_soon, True
        nursery.start_soon(lambda: address.run(1, task_status=trio.TASK_STATUS_IGNORED))
        await trio.testing.wait_all_tasks_blocked()
        address.ref.tell(Suspend())
        address.ref.tell(Note(1))
        await trio.testing.wait_all_tasks_blocked()
        address.request_stop(StopReason(StopCause.RESTART))
        await trio.testing.wait_all_tasks_blocked()
        assert address.ref.tell(Note(2)) is Delivery.ACCEPTED
        assert len(world.stops) == 1
    assert world.notes == []
    assert address.mailbox.statistics().current_buffer_used == 2


# S-601
async def test_a_stop_finishes_the_current_message_and_leaves_the_rest_unhandled(
    mock_clock: trio.testing.MockClock,
) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        address = DrainingAddress("slow", lambda: Slow(world), Services())
        supervisor = Supervisor("top", [ChildSpec("slow", lambda: address, shutdown=300.0)])
        await nursery.start(run, supervisor)
        address.ref.tell(Note(1))
        address.ref.tell(Note(2))
        await trio.testing.wait_all_tasks_blocked()
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN))
        await trio.testing.wait_all_tasks_blocked()
        assert address.is_up
        mock_clock.jump(61.0)
    assert world.notes == [1]
    assert world.undelivered == [(Note(2),)]
    assert len(world.stops) == 1


# S-1005
def test_a_paused_actor_stays_paused_over_the_restarts_of_its_supervisor(launch: Launch) -> None:
    process = launch(ONE)
    process.call("pause", name="echo")
    process.call("kill", name="echo")
    process.until("echo started (incarnation 2")
    found = child(process, "echo")
    assert (found["state"], found["incarnation"]) == ("paused", 2)
    process.call("resume", name="echo")
    assert child(process, "echo")["state"] == "running"


# S-1005
def test_a_paused_actor_stays_paused_over_a_restart_and_a_stop_until_it_is_resumed(launch: Launch) -> None:
    process = launch(ONE)
    process.call("pause", name="echo")
    process.call("restart", name="echo")
    assert (child(process, "echo")["state"], child(process, "echo")["paused"]) == ("paused", True)
    process.call("stop", name="echo")
    process.call("restart", name="echo")
    assert (child(process, "echo")["state"], child(process, "echo")["incarnation"]) == ("paused", 3)
    process.call("stop", name="echo")
    stopped = {"name": "echo", "paused": False, "not_running": {"echo": "stopped"}}
    assert process.call("resume", name="echo") == stopped
    process.call("restart", name="echo")
    assert child(process, "echo")["state"] == "running"


# S-1006
def test_every_change_leaves_an_event_with_the_callers_uid_and_pid_and_the_outcome(launch: Launch) -> None:
    process = launch(ONE)
    process.call("status")
    process.call("kill", name="echo")
    with pytest.raises(ControlError):
        process.call("stop", name="ecco")
    kill = process.until("kill echo: done")
    stop = process.until("stop ecco: refused: ")
    for line in (kill, stop):
        assert f"operator (uid {os.getuid()}, pid {os.getpid()})" in line
    assert "status" not in process.output.split("next:")[1].replace("atlas status", "")


# S-1007
def test_failpoints_are_refused_unless_the_configuration_allows_them(launch: Launch) -> None:
    process = launch(ONE)
    with pytest.raises(ControlError, match=r"set \[chaos\] failpoints = true") as refused:
        process.call("kill", name="echo", at="before:Work")
    assert refused.value.exit_code == 64


# S-1008
def test_restart_stops_in_order_and_brings_back_what_is_down(launch: Launch) -> None:
    process = launch(ONE)
    assert process.call("restart", name="echo") == {"name": "echo", "incarnation": 2}
    process.until("echo stops: terminated")
    process.call("stop", name="echo")
    assert child(process, "echo")["state"] == "down"
    assert process.call("restart", name="echo") == {"name": "echo", "incarnation": 3}
    assert child(process, "echo")["state"] == "running"


# S-1008
def test_restart_does_not_lose_a_temporary_actor_nor_one_that_has_ended(launch: Launch) -> None:
    process = launch(ONE + 'restart = "temporary"\n[actor.other]\nactor = "{actors}:Echo"\n')
    assert process.call("restart", name="echo") == {"name": "echo", "incarnation": 2}
    found: Any = process.call("status")
    assert [each["name"] for each in found["children"]] == ["echo", "other"], "in its place"
    process.call("kill", name="echo")
    process.until("echo killed")
    assert process.call("restart", name="echo") == {"name": "echo", "incarnation": 3}
    assert child(process, "echo")["state"] == "running"
    process.call("stop", name="echo")
    assert process.call("restart", name="echo") == {"name": "echo", "incarnation": 4}
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


# S-1010
def test_a_command_that_reaches_nobody_exits_69_and_one_that_is_refused_64(launch: Launch, place: Path) -> None:
    write_config(place, ONE)
    alone = atlas(place, "status")
    assert alone.returncode == 69
    assert f"is `atlas run` running? socket {place / 'atlas.sock'}" in alone.stderr
    launch(ONE)
    refused = atlas(place, "kill", "ecco")
    assert refused.returncode == 64
    assert "no actor is named 'ecco'; did you mean 'echo'?" in refused.stderr
    assert "Traceback" not in alone.stderr + refused.stderr


# S-613 S-1101
def test_a_wrong_configuration_exits_78_with_all_errors_and_starts_nothing(place: Path) -> None:
    write_config(place, ONE + 'restrat = "permanent"\nmailbox = {{ capacity = 0 }}\n')
    refused = atlas(place, "run")
    assert refused.returncode == 78
    assert 'supervisor.toml:7: actor.echo.restrat: unknown key; did you mean "restart"?' in refused.stderr
    assert "actor.echo.mailbox.capacity: must be >= 1, got 0" in refused.stderr
    assert not (place / "atlas.sock.lock").exists()


# S-1108
def test_check_tells_order_longest_stop_and_time_to_give_up_and_starts_nothing(place: Path) -> None:
    text = """
        [actor.second]
        actor = "{actors}:Echo"
        needs = ["first"]
        [actor.first]
        actor = "{actors}:Echo"
        give_up = "never"
    """
    write_config(place, text)
    checked = atlas(place, "check")
    assert checked.returncode == 0, checked.stderr
    lines = checked.stdout.splitlines()
    rows = [line.split() for line in lines if "demo_actors:Echo" in line]
    assert [row[:2] for row in rows] == [["1", "first"], ["2", "second"]]
    assert rows[0][-1] == "never"
    assert "escalate after 7.5 s" in checked.stdout
    assert "longest stop: 12 s" in checked.stdout
    assert not (place / "atlas.sock.lock").exists()
