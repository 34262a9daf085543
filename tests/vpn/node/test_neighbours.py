"""Backend and agent of neighbouring versions understand each other, while one is upgraded before the other.

`conversations/` has what a backend and an agent of an earlier version said to each other, recorded from the real programs.
Its requests go to today's agent, its answers to today's backend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from runtime.http import new_client
from tests.vpn.agents import TOKEN, RunningAgent, key
from tests.vpn.node.test_hostile_answers import hostile, says
from vpn.errors import NodeConflict, NodeError, NodeProtocolError
from vpn.node.client import AgentClient
from vpn.protocol import CAN_CUT, Applied, KeySpec, Removal, Removed
from vpn.xray.cutter import CutMethod

CONVERSATIONS = sorted((Path(__file__).parent / "conversations").glob("*.json"))
OF_THE_HOST = {CAN_CUT, *CutMethod}
"Capabilities that depend on what the host allows."

END = datetime(2030, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)


def conversation(path: Path) -> list[dict[str, Any]]:
    """What was said, in order."""
    said: list[dict[str, Any]] = json.loads(path.read_text())
    return said


def uuid(number: int) -> UUID:
    """As in the recorded requests."""
    return UUID(f"00000000-0000-4000-8000-{number:012}")


def lacks(old: object, new: object, where: str = "answer") -> list[str]:
    """Where `new` has no value of the kind that `old` has: what a reader of `old` would miss."""
    if isinstance(old, Mapping):
        if not isinstance(new, Mapping):
            return [where]
        return [
            found
            for name, value in old.items()
            for found in ([f"{where}.{name}"] if name not in new else lacks(value, new[name], f"{where}.{name}"))
        ]
    if isinstance(old, list) and isinstance(new, list):
        if all(isinstance(value, str) for value in old):
            return [] if set(old) - OF_THE_HOST <= set(new) else [where]
        if len(old) != len(new):
            return [where]
        return [
            found
            for number, pair in enumerate(zip(old, new, strict=True))
            for found in lacks(*pair, f"{where}[{number}]")
        ]
    return [] if type(old) is type(new) else [where]


async def test_an_agent_answers_the_backend_of_an_earlier_version_as_it_expects(
    path: Path, agent: RunningAgent
) -> None:
    async with new_client(agent.url, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        for said in conversation(path):
            headers = {"content-type": said["type"]} if said["type"] else {}
            answer = await http.request(said["method"], said["path"], content=said["body"].encode(), headers=headers)
            at = f"{said['method']} {said['path']}"
            assert answer.status_code == said["status"], at
            assert lacks(said["answer"], answer.json()) == [], at
            if "error" in said["answer"]:
                assert answer.json()["error"]["code"] == said["answer"]["error"]["code"], at


async def ask(client: AgentClient, number: int) -> object:
    """What the recorded request of this number asked for."""
    one = key("one", uuid=uuid(1), expires_at=END)
    match number:
        case 0 | 11:
            return await client.state()
        case 1 | 2:
            return await client.put(one)
        case 3:
            changes: list[KeySpec | Removal] = [
                key("two", uuid=uuid(2)),
                Removal("gone", 3),
                key("three", uuid=uuid(3)),
                key("four", uuid=uuid(3)),
            ]
            return await client.batch(changes)
        case 4:
            return await client.get("one")
        case 5:
            return await client.list()
        case 6:
            return await client.remove("three", 1)
        case 7:
            return await client.put(key("three", uuid=uuid(3)))
        case 8:
            return await client.sync([one, key("two", uuid=uuid(2)), key("five", uuid=uuid(5))])
        case 9:
            return await client.usage()
        case _:
            return await client.kick("one")


def with_something_new(answer: object) -> object:
    """The same answer of a later version: each object says more."""
    if isinstance(answer, dict):
        return {name: with_something_new(value) for name, value in answer.items()} | {"of_a_later_version": ["more"]}
    return [with_something_new(value) for value in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize("is_later", [False, True], ids=["earlier", "later"])
async def test_a_backend_reads_what_an_agent_of_another_version_answers(path: Path, *, is_later: bool) -> None:
    heard: list[object] = []
    for number, said in enumerate(conversation(path)):
        told = with_something_new(said["answer"]) if is_later else said["answer"]
        async with hostile(says(json.dumps(told).encode(), f"{said['status']} Said")) as client:
            try:
                heard.append(await ask(client, number))
            except NodeError as error:
                heard.append(error)
    first, put, again, batch, got, listed, removed, conflict, synced, usage, kicked, last = (one for one in heard)
    assert isinstance(conflict, NodeConflict) and not [
        one for one in heard if isinstance(one, NodeError) and one is not conflict
    ]
    # what the earlier version does not say has these defaults: no owner, no trouble
    for state in (first, last):
        said = {name: getattr(state, name) for name in ("time_source", "wall_skew", "ends_held", "owner", "xray_ends")}
        assert said == {"time_source": "", "wall_skew": 0.0, "ends_held": 0, "owner": "", "xray_ends": 0}
    assert isinstance(put, Applied) and isinstance(again, Applied) and (put.created, again.created) == (True, False)
    assert isinstance(batch, list | tuple) and [type(one) for one in batch[:3]] == [Applied, Removed, Applied]
    assert all((got, listed, removed, synced, usage, kicked))


@pytest.mark.parametrize("name", ["agent_id", "digest", "sequence", "inbounds", "now"])
async def test_an_agent_too_old_to_be_driven_is_refused_by_what_it_lacks(path: Path, name: str) -> None:
    told = conversation(path)[0]["answer"]
    del told[name]
    async with hostile(says(json.dumps(told).encode())) as client:
        with pytest.raises(NodeProtocolError, match=name):
            await client.state()
