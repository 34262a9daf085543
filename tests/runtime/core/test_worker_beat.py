"""When a worker's silence counts, and from when on: what its supervisor is busy with is left out."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from runtime.child import ChildSpec, GiveUp, StopCause, StopReason
from runtime.core.address import Address
from runtime.core.beats import Beats, WorkerState
from runtime.core.services import Services
from runtime.core.worker import Budget, Iteration, PeriodicWorker
from runtime.events import EventBus
from runtime.message import Message, Suspend
from runtime.restart_limits import Backoff
from runtime.supervision.supervisor import Supervisor
from runtime.watchdog.verdict import Repair, StaleLimits, StaleReason, beat_ages, judge, take_snapshot


@attrs.frozen
class Note(Message):
    """Waits, and is dropped when its turn comes."""


@attrs.define(eq=False)
class Failing(PeriodicWorker):
    """Fails twice, then takes its time."""

    began: list[float]

    async def iterate(self, _: Budget) -> Iteration:
        self.began.append(trio.current_time())
        if len(self.began) > 2:
            await trio.sleep_forever()
        raise RuntimeError("boom")


@attrs.define(eq=False)
class Late(PeriodicWorker):
    """Takes its time to start, and still longer to look into its mailbox."""

    async def on_start(self) -> None:
        await super().on_start()
        await trio.sleep(500)

    async def after_start(self) -> None:
        await trio.sleep_forever()

    async def iterate(self, _: Budget) -> Iteration:
        return Iteration()


# S-1005
async def test_a_worker_that_is_paused_before_its_first_start_does_not_begin(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    began = list[float]()
    address = Address("worker", lambda: Failing(began, interval=1, start_jitter=(0, 0)), Services())
    address.is_paused = True
    address.ref.tell(Suspend())
    async with trio.open_nursery() as nursery:
        await nursery.start(address.run, 1)
        await trio.sleep(100)
        address.request_stop(StopReason(StopCause.SHUTDOWN))
    assert began == []


# S-803
async def test_a_worker_in_its_backoff_is_not_stale_and_its_backlog_has_a_full_limit_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    services = Services(events=EventBus(log=None), beats=Beats(trio.current_time))
    beats, limits, began = services.beats, StaleLimits(), list[float]()
    address = Address("worker", lambda: Failing(began, interval=300, start_jitter=(0, 0), budget=1000), services)
    backoff = Backoff(initial=500, maximum=500, jitter=0)
    spec = ChildSpec("worker", lambda: address, backoff=backoff, give_up=GiveUp.NEVER)
    supervisor = Supervisor("top", [spec])

    def looks() -> tuple[WorkerState, bool, list[object]]:
        beats.sample()
        beats.tick()
        snapshot = take_snapshot(beats)
        return beats.worker("worker").state, not beat_ages(snapshot).worker, list(judge(snapshot, limits))

    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: supervisor.run(1, task_status=task_status))
        await trio.testing.wait_all_tasks_blocked()
        assert len(began) == 2, "the first restart is immediate, the second waits"
        await trio.sleep(250)
        address.ref.tell(Note())
        assert looks() == (WorkerState.DOWN, True, [])
        await trio.sleep(249)
        assert looks() == (WorkerState.DOWN, True, [])
        await trio.sleep(1)
        await trio.testing.wait_all_tasks_blocked()
        assert len(began) == 3
        assert looks() == (WorkerState.ACTIVE, True, [])
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN))
    assert beats.worker("worker").handling_since is None


# S-803
async def test_what_waited_for_a_worker_to_come_up_starves_only_after_a_full_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    services = Services(events=EventBus(log=None), beats=Beats(trio.current_time))
    address = Address("worker", lambda: Late(interval=300, start_jitter=(9000, 9000)), services)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, address.run, 1)
        await trio.testing.wait_all_tasks_blocked()
        address.ref.tell(Note())
        await trio.sleep(500)
        await trio.testing.wait_all_tasks_blocked()
        beat, limits = services.beats.worker("worker"), StaleLimits()
        await trio.sleep(limits.worker)
        services.beats.sample()
        assert (beat.state, judge(take_snapshot(services.beats), limits)) == (WorkerState.ACTIVE, [])
        await trio.sleep(1)
        services.beats.sample()
        assert [
            action.why for action in judge(take_snapshot(services.beats), limits) if isinstance(action, Repair)
        ] == [StaleReason.STARVED]
        nursery.cancel_scope.cancel()
