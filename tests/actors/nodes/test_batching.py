"""Changes that are asked for at once travel together, and each is answered as if it had travelled alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from actors.nodes.batching import MAX_CHANGES, Change, ChangeBatcher, ChangeOutcome
from actors.nodes.messages import PutKey, RemoveKey
from runtime import AskTimeout, Deferred
from tests.actors.node_fixtures import node_harness
from tests.actors.nodes.lying_proxy import loses
from tests.vpn.agents import key
from vpn.errors import NodeAmbiguous, NodeConflict
from vpn.protocol import Applied, KeySpec, KeyState, Removal, Removed


@attrs.define
class Journey:
    """Groups that were sent; each waits until it may arrive."""

    groups: list[list[str]] = attrs.field(factory=list)
    gate: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(0))

    async def send(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """A group on its way."""
        self.groups.append([change.key_id for change in changes])
        await self.gate.acquire()
        return [
            Applied(change.key_id, change.generation, True, KeyState.SERVING, None)
            if isinstance(change, KeySpec)
            else Removed(change.key_id, True, 0)
            for change in changes
        ]


async def test_the_first_change_goes_at_once_and_what_comes_meanwhile_goes_together() -> None:
    journey = Journey()
    async with trio.open_nursery() as nursery:
        changes = ChangeBatcher(nursery.start_soon, journey.send, max_in_flight=1)
        changes.add(key("first"), Deferred(None))
        await trio.testing.wait_all_tasks_blocked()
        for name in ("second", "third", "second", "fourth"):
            changes.add(Removal(name, 1) if name == "third" else key(name), Deferred(None))
        assert (journey.groups, changes.waiting) == ([["first"]], 4)
        for _ in range(3):
            journey.gate.release()
    assert journey.groups == [["first"], ["second", "third", "fourth"], ["second"]], "never two of one key together"
    assert changes.waiting == 0


async def test_a_change_of_a_key_that_is_on_its_way_waits_for_it() -> None:
    journey = Journey()
    async with trio.open_nursery() as nursery:
        changes = ChangeBatcher(nursery.start_soon, journey.send, max_in_flight=2)
        for name in ("one", "one", "two"):
            changes.add(key(name), Deferred(None))
            await trio.testing.wait_all_tasks_blocked()
        assert journey.groups == [["one"], ["two"]]
        for _ in range(3):
            journey.gate.release()
    assert journey.groups == [["one"], ["two"], ["one"]]


async def test_a_group_has_a_limit() -> None:
    journey = Journey()
    async with trio.open_nursery() as nursery:
        changes = ChangeBatcher(nursery.start_soon, journey.send, max_in_flight=1)
        for number in range(MAX_CHANGES + 2):
            changes.add(key(f"k{number}"), Deferred(None))
        for _ in range(3):
            journey.gate.release()
    assert [len(group) for group in journey.groups] == [MAX_CHANGES, 2]


async def test_many_puts_at_once_are_few_requests_and_each_has_its_own_outcome(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        proxy = await harness.node_behind_proxy("oslo")
        node = harness.pool.system.address("node.oslo").ref
        await harness.put_stranger("oslo", key("k7", generation=5))
        outcomes: dict[str, object] = {}

        async def put(name: str) -> None:
            try:
                applied: Applied = await node.ask(PutKey(key(name)), within=10.0)
                outcomes[name] = applied
            except NodeConflict as error:
                outcomes[name] = error

        proxy.requests.clear()
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(put, f"k{number}")
        asked = [line for line in proxy.requests if line.startswith(("PUT ", "POST "))]
        assert len(asked) <= 4, asked
        refused = outcomes.pop("k7")
        assert isinstance(refused, NodeConflict) and refused.generation == 5
        assert len(outcomes) == 29
        assert all(isinstance(outcome, Applied) and outcome.key_id == name for name, outcome in outcomes.items())
        assert len(await harness.listed("oslo")) == 30


@pytest.mark.parametrize("times", [1, 1_000_000])
async def test_a_group_whose_answer_is_lost_is_found_done(database_dsn: str, tmp_path: Path, times: int) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        proxy = await harness.node_behind_proxy("oslo")
        node = harness.pool.system.address("node.oslo").ref
        proxy.lie = loses("POST /v1/batch", times=times)
        proxy.withheld = "PUT /v1/users/"
        async with trio.open_nursery() as nursery:

            async def put(name: str) -> None:
                await node.ask(PutKey(key(name)), within=20.0)

            # two on their way, so that all others wait and make one group
            for number in (1, 2):
                nursery.start_soon(put, f"first{number}")

                async def flies(number: int = number) -> bool:
                    return proxy.held == number

                await harness.until(flies)
            for number in range(12):
                nursery.start_soon(put, f"k{number}")

            async def all_wait() -> bool:
                inside = node.address.inspect()["actor"]
                assert isinstance(inside, dict)
                return bool(inside["changes_waiting"] == 12)

            await harness.until(all_wait)
            proxy.release()
        assert proxy.lied
        proxy.lie = None
        removed = await node.ask(RemoveKey("k3", 1), within=5.0)
        assert removed.existed
        assert len(await harness.listed("oslo")) == 13


async def test_who_gave_up_before_the_change_was_sent_is_left_out(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        proxy = await harness.node_behind_proxy("oslo")
        node = harness.pool.system.address("node.oslo").ref
        proxy.withheld = "PUT /v1/users/"
        async with trio.open_nursery() as nursery:

            async def put(name: str) -> None:
                with suppress(NodeAmbiguous):
                    await node.ask(PutKey(key(name)), within=20.0)

            for number in (1, 2):
                nursery.start_soon(put, f"slow{number}")

                async def flies(number: int = number) -> bool:
                    return proxy.held == number

                await harness.until(flies)
            with pytest.raises(AskTimeout):
                await node.ask(PutKey(key("given-up")), within=0.05)
            nursery.start_soon(put, "late")
            proxy.release()
        assert sorted(await harness.listed("oslo")) == ["late", "slow1", "slow2"]
