"""What a running system says of itself, looked at from within the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio
import trio.testing

from runtime.child import StopCause, StopReason
from runtime.cli.show import render
from runtime.config.loader import load_text
from runtime.core.actor import Actor, handler
from runtime.core.beats import WorkerState
from runtime.errors import Ignore
from runtime.message import Message, Stop
from runtime.operations.operations import OperationFailed, ResumeOutcome
from runtime.supervision.supervisor import ChildState
from runtime.system.system import System
from runtime.system.watchdog_setup import make_watchdog
from tests.runtime.atlas_process import short_directory


@attrs.define(eq=False)
class Plain(Actor):
    """Does nothing."""


@attrs.define(eq=False)
class Declining(Actor):
    """Has nothing to do here."""

    async def on_start(self) -> None:
        raise Ignore("not here")


@attrs.define(eq=False)
class Slow(Actor):
    """Takes its time to start."""

    goes_on: ClassVar[trio.Event]

    async def on_start(self) -> None:
        await self.goes_on.wait()


@attrs.frozen
class Fall(Message):
    """Crash."""


@attrs.define(eq=False)
class Falling(Actor):
    """Crashes when told to."""

    @handler
    async def fall(self, _: Fall) -> None:
        raise RuntimeError("told to")


TREE = """
[actor.plain]
actor = "{here}:Plain"
[actor.declining]
actor = "{here}:Declining"
[actor.finishing]
actor = "{here}:Plain"
restart = "transient"
[actor.falling]
actor = "{here}:Falling"
backoff = {{ initial = 500, maximum = 500, jitter = 0 }}
give_up = "never"
[group.crew]
[actor.member]
actor = "{here}:Plain"
group = "crew"
"""


@asynccontextmanager
async def running(more: str = "") -> AsyncIterator[System]:
    """The tree of a system, without a process around it."""
    system = System(load_text(TREE.format(here=__name__) + more))
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: system.root.run(task_status=task_status))
        system.is_up = True
        yield system
        system.root.request_stop(StopReason(StopCause.SHUTDOWN, "over"))


def child(system: System, name: str) -> Any:
    children: Any = system.operations.status()["children"]
    return next(each for each in children if each["name"] == name)


async def test_who_declined_or_finished_is_not_waited_for_and_whom_an_operator_stopped_is() -> None:
    async with running() as system:

        def unready() -> tuple[bool, list[str], list[str]]:
            status: Any = system.operations.status()
            awaited = [each.name for each in system.registry if each.is_awaited and not each.readiness[0]]
            return status["ready"], sorted(status["not_ready"]), sorted(awaited)

        await trio.testing.wait_all_tasks_blocked()
        assert unready() == (True, [], [])
        assert unready() == (True, [], [])
        assert child(system, "declining")["state"] == "down"
        assert child(system, "declining")["reason"] == "not needed: not here"
        screen = system.start_screen(1.0).splitlines()
        assert [line.split() for line in screen if "declining" in line] == [
            ["declining", "not", "needed:", "not", "here"]
        ]
        assert screen[1].endswith(", 1 not needed")
        system.addresses["finishing"].ref.tell(Stop())
        await trio.testing.wait_all_tasks_blocked()
        assert child(system, "finishing")["last_exit"]["reason"] == "normal"
        assert unready() == (True, [], [])
        await system.operations.stop("plain")
        assert unready() == (False, ["plain"], ["plain"])
        await system.operations.stop("crew")
        assert unready() == (False, ["crew", "plain"], ["member", "plain"])
        await system.operations.restart("plain")
        await system.operations.restart("crew")
        assert unready() == (True, [], [])


@attrs.define(eq=False)
class Fickle(Actor):
    """Serves once, and from then on crashes as soon as it serves."""

    async def after_start(self) -> None:
        if self.context.incarnation > 1:
            raise RuntimeError("not today")


FICKLE = f"""
[actor.fickle]
actor = "{__name__}:Fickle"
backoff = {{ initial = 500, maximum = 500, jitter = 0 }}
give_up = "never"
"""


# S-1014
async def test_a_restart_of_an_actor_that_crashes_at_once_is_no_success() -> None:
    async with running(FICKLE) as system:
        with pytest.raises(
            OperationFailed, match=r"fickle was started as incarnation 2, and did not last: .*not today"
        ):
            await system.operations.restart("fickle")
        assert OperationFailed("").exit_code == 70
        assert await system.operations.restart("plain") == 2


# S-1013
async def test_resume_says_who_was_not_paused_and_who_does_not_run() -> None:
    async with running() as system:
        operations = system.operations
        operations.pause("member")
        assert operations.resume("crew") == ResumeOutcome((), {})
        assert operations.resume("member") == ResumeOutcome(("member",), {})
        operations.pause("plain")
        await operations.stop("plain")
        assert operations.resume("plain") == ResumeOutcome((), {"plain": "stopped"})


async def test_it_is_not_ready_before_the_whole_tree_has_started() -> None:
    slow = f"""
[group.late]
[actor.slow]
actor = "{__name__}:Slow"
group = "late"
[actor.after]
actor = "{__name__}:Plain"
needs = ["slow"]
"""
    Slow.goes_on = trio.Event()
    system = System(load_text(TREE.format(here=__name__) + slow))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(system.root.run)
        await trio.testing.wait_all_tasks_blocked()
        status: Any = system.operations.status()
        assert (status["ready"], status["state"], sorted(status["not_ready"])) == (
            False,
            "starting",
            ["after", "late", "slow"],
        )
        system.is_up = True  # whoever says so too early
        assert not system.operations.status()["ready"]
        Slow.goes_on.set()
        await trio.testing.wait_all_tasks_blocked()
        status = system.operations.status()
        assert (status["ready"], status["not_ready"]) == (True, [])
        system.root.request_stop(StopReason(StopCause.SHUTDOWN, "over"))


# S-801 S-802
async def test_status_shows_the_three_beats_who_is_stale_and_whose_silence_does_not_count() -> None:
    async with running() as system:
        beats = system.services.beats
        beats.tick()
        status: Any = system.operations.status()
        assert status["beats"]["event_loop"] < 60
        assert (status["beats"]["worker"], status["beats"]["healthcheck"]) == (None, None)
        beats.probed()
        beats.worker("activation").next_due = beats.now() - 125
        beats.worker("reminders").state = WorkerState.PAUSED
        status = system.operations.status()
        assert status["beats"]["worker"] == pytest.approx(125, abs=30)
        assert status["beats"]["healthcheck"] < 60
        shown = render(status).splitlines()[-1]
        assert "(activation is overdue), healthcheck " in shown
        assert shown.endswith("; left out: reminders paused")


# S-905
async def test_the_log_is_looked_after_without_a_watchdog_too(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, looked = [0], trio.Event()

    def check() -> None:
        looks[0] += 1
        if looks[0] == 2:
            looked.set()

    monkeypatch.setattr("runtime.log.logs.check", check)
    monkeypatch.setattr("runtime.system.system.LOG_CHECK", 0.001)
    with short_directory() as directory:
        config = f'[control]\nsocket = "{directory}/a.sock"\n[watchdog]\nenabled = false\n'
        system = System(load_text(TREE.format(here=__name__) + config))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(system.run)
            with trio.fail_after(10):
                await looked.wait()
            system.stop("seen")


# S-803
@pytest.mark.parametrize("is_gone", [False, True], ids=["waits for its backoff", "was stopped"])
async def test_a_health_check_that_is_not_up_is_not_judged(
    autojump_clock: trio.testing.MockClock, is_gone: bool
) -> None:
    assert autojump_clock.autojump_threshold == 0
    async with running('[watchdog]\nhealthcheck = "falling"\n') as system:
        watchdog, beats = make_watchdog(system), system.services.beats
        watchdog.look()
        assert beats.healthcheck is not None, "its silence counts"
        if is_gone:
            await system.operations.stop("falling")
        for _ in range(0 if is_gone else 2):  # the first restart is immediate, the second waits
            system.addresses["falling"].ref.tell(Fall())
            await trio.testing.wait_all_tasks_blocked()
        assert system.tree.find("falling").state is (ChildState.DOWN if is_gone else ChildState.RESTARTING)  # type: ignore[union-attr]
        watchdog.look()
        assert beats.healthcheck is None
