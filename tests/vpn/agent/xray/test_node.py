"""The node's own rules, with a real store and no Xray."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.vpn.agents import key
from vpn.agent.state.clock import NodeClock
from vpn.agent.state.expiry import BackendContact
from vpn.agent.state.store import open_store
from vpn.agent.xray.node import AgentNode
from vpn.agent.xray.supervisor import XraySupervisor
from vpn.protocol import InboundFacts, KeyState
from vpn.xray.config import Inbound


@pytest.fixture
def node(tmp_path: Path) -> Iterator[AgentNode]:
    """A node whose Xray is not up yet and whose clock may be moved; the backend has just been heard."""
    clock = NodeClock(0.0)
    store, _ = open_store(tmp_path, clock.now)
    xray = XraySupervisor(
        directory=tmp_path,
        inbound=Inbound("vless", "127.0.0.1", 1),
        reaches=(),
        users=list,
        on_access=lambda *_: None,
        clock=clock.now,
    )
    yield AgentNode(
        store, xray, BackendContact(clock.elapsed()), InboundFacts("vless", "localhost", 1, "tcp", "none"), clock
    )
    store.close()


@pytest.mark.parametrize("request_kind", ["put", "batch", "sync"])
async def test_a_key_ends_at_its_time_though_its_caller_gave_up_while_the_disk_was_slow(
    node: AgentNode, request_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = key("customer", expires_at=datetime.now(UTC) + timedelta(hours=1))
    is_slow = trio.Event()

    async def never(*_: object) -> None:
        is_slow.set()
        await trio.sleep_forever()

    async def ask() -> None:
        if request_kind == "put":
            await node.put(spec)
        elif request_kind == "batch":
            await node.batch([spec])
        else:
            await node.sync([spec], None)

    monkeypatch.setattr(trio.to_thread, "run_sync", never)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await is_slow.wait()
        nursery.cancel_scope.cancel()
    monkeypatch.undo()
    assert node.state_of("customer") is KeyState.PENDING and node.is_pending("customer")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await wait_all_tasks_blocked()
        node.clock.move(2 * 3600.0)
        node.clock_changed()
        await wait_all_tasks_blocked()
        assert node.state_of("customer") is KeyState.EXPIRED
        nursery.cancel_scope.cancel()
