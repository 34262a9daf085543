"""Any sequence of faults and administrative calls, drawn by Hypothesis, on a virtual clock.

Whatever happened: no child ever runs twice at once, each incarnation has exactly one record, every call is answered,
and once the faults stop everything that should be up is up; then the supervisor stops within its worst case.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.child import ChildSpec, GiveUp, Restart, StopCause, StopReason, Strategy
from runtime.restart_limits import Backoff
from runtime.supervision.spec_checks import SpecTree, worst_case_shutdown
from runtime.supervision.supervisor import (
    AdministrationError,
    ChildrenUnstopped,
    ChildStartFailed,
    ChildState,
    RestartIntensityExceeded,
    SpecError,
)
from tests.runtime.supervision.misbehaving import Harness, Outcome, Start, Stop, settle

NAMES = ("a", "b", "c", "d")
ACTIONS = ("crash", "finish", "kill", "terminate", "restart", "delete", "start")
step = st.one_of(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES)),
    st.tuples(st.just("how it starts next"), st.sampled_from(NAMES), st.sampled_from(list(Start))),
    st.tuples(st.just("how it stops"), st.sampled_from(NAMES), st.sampled_from(list(Stop))),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.3, 1.0, 4.0])),
    st.tuples(st.just("settle"), st.none()),
)


class Storm:
    """One run: the harness, the supervisor, and the calls that wait."""

    def __init__(self, strategy: Strategy, restarts: tuple[Restart, ...], give_up: GiveUp, *, needs: bool) -> None:
        self.harness = Harness()
        self.restarts = dict(zip(NAMES, restarts, strict=True))
        self.specs = {name: self._spec(name, give_up, needs=needs) for name in NAMES}
        self.supervisor = self.harness.supervisor(*self.specs.values(), strategy=strategy, intensity=3)
        self.waiting = 0

    def _spec(self, name: str, give_up: GiveUp, *, needs: bool) -> ChildSpec:
        return self.harness.spec(
            name,
            restart=self.restarts[name],
            give_up=give_up,
            backoff=Backoff(initial=0.5, maximum=2.0),
            shutdown=2.0,
            kill_grace=0.5,
            start_timeout=3.0,
            needs=("a",) if needs and name == "c" else (),
        )

    async def call(self, function: Callable[..., object], *args: object) -> None:
        """One administrative call; it is answered somehow."""
        self.waiting += 1
        try:
            result = function(*args)
            if hasattr(result, "__await__"):
                await result
        except (AdministrationError, ChildStartFailed, ChildrenUnstopped, SpecError):
            pass
        self.waiting -= 1

    async def take(self, action: tuple[object, ...], nursery: trio.Nursery) -> None:
        match action:
            case ("crash", str(name)):
                self.harness[name].crash()
            case ("finish", str(name)):
                self.harness[name].finish()
            case ("kill", str(name)):
                nursery.start_soon(self.call, self.supervisor.kill_child, name, "storm")
            case ("terminate", str(name)):
                nursery.start_soon(self.call, self.supervisor.terminate_child, name)
            case ("restart", str(name)):
                nursery.start_soon(self.call, self.supervisor.restart_child, name)
            case ("delete", str(name)):
                nursery.start_soon(self.call, self.supervisor.delete_child, name)
            case ("start", str(name)):
                nursery.start_soon(self.call, self.supervisor.start_child, self.specs[name])
            case ("how it starts next", str(name), Start() as start):
                self.harness[name].starts.append(start)
            case ("how it stops", str(name), Stop() as stop):
                self.harness[name].stop = stop
            case ("sleep", float(seconds)):
                await trio.sleep(seconds)
            case _:
                await settle()

    async def heal(self) -> None:
        """End the faults and wait for the longest of what may still be going on."""
        for child in self.harness.children.values():
            child.starts.clear()
            child.stop = Stop.OBEY
        for _ in range(40):
            await trio.sleep(1.0)
            for child in self.harness.children.values():
                child.release()

    def check_records(self) -> None:
        assert self.harness.detonated == []
        for child in self.harness.children.values():
            numbers = [end.incarnation for end in child.exits]
            assert numbers == sorted(set(numbers))
            assert set(child.incarnations) - set(numbers) <= set(child.incarnations[-1:])


async def weather(storm: Storm, actions: list[tuple[object, ...]]) -> None:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        await nursery.start(outcome.collect, storm.supervisor)
        async with trio.open_nursery() as calls:
            for action in actions:
                await storm.take(action, calls)
                storm.check_records()
            await storm.heal()
        assert storm.waiting == 0
        assert outcome.error is None or storm.supervisor.which_children() == ()
        for info in storm.supervisor.which_children():
            may_be_down = info.state is ChildState.DOWN
            assert info.state is ChildState.RUNNING or may_be_down, info
            if may_be_down and info.restart is Restart.PERMANENT:
                assert info.last_exit is None or _was_put_down(info.name, actions), info
        begin = trio.current_time()
        storm.supervisor.request_stop(StopReason(StopCause.SHUTDOWN, "over"))
        await outcome.ended.wait()
        assert trio.current_time() - begin <= sum(worst_case_shutdown(SpecTree(spec)) for spec in storm.specs.values())
    assert outcome.error is None or isinstance(outcome.error, RestartIntensityExceeded | ChildrenUnstopped)
    storm.check_records()
    assert all(child.inside == 0 for child in storm.harness.children.values())
    assert all(
        {*child.incarnations} <= {end.incarnation for end in child.exits} for child in storm.harness.children.values()
    )


def _was_put_down(name: str, actions: list[tuple[object, ...]]) -> bool:
    asked = any(action[:2] in (("terminate", name), ("restart", name), ("start", name)) for action in actions)
    return asked or any(action == ("how it starts next", name, Start.IGNORE) for action in actions)


# S-528
@settings(max_examples=150, deadline=None)
@given(
    strategy=st.sampled_from(list(Strategy)),
    restarts=st.tuples(*[st.sampled_from(list(Restart)) for _ in NAMES]),
    give_up=st.sampled_from([GiveUp.NEVER, GiveUp.NEVER, GiveUp.ESCALATE]),
    needs=st.booleans(),
    actions=st.lists(step, max_size=30),
)
def test_whatever_happens_the_tree_heals(
    strategy: Strategy, restarts: tuple[Restart, ...], give_up: GiveUp, needs: bool, actions: list[tuple[object, ...]]
) -> None:
    async def run() -> None:
        await weather(Storm(strategy, restarts, give_up, needs=needs), actions)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
