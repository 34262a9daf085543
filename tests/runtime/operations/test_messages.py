"""Messages of operators: checked, sent, and what comes back without secrets."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from runtime.config.loader import load_text
from runtime.config.secret import Secret
from runtime.control import client
from runtime.control.protocol import ControlError
from runtime.control.server import ControlServer, OperatorCommand
from runtime.core.actor import Actor, handler
from runtime.message import Message, Request
from runtime.operations import messages
from runtime.operations.operations import OperationRefused
from runtime.system.system import System
from tests.runtime.atlas_process import PATIENCE, short_directory


class Colour(enum.StrEnum):
    RED = "red"


@attrs.frozen
class Paint(Message):
    colour: Colour
    coats: int = 1


@attrs.frozen
class Wall:
    colour: Colour
    password: str
    key: Secret


@attrs.frozen
class Walls(Request[tuple[Wall, ...]]):
    """All of them."""


@attrs.define(eq=False)
class Painter(Actor):
    walls: list[Wall] = attrs.field(init=False, factory=list)

    @handler
    async def paint(self, message: Paint) -> None:
        self.walls += [Wall(message.colour, "hunter2-hunter2", Secret("abcdefgh-abcdefgh"))] * message.coats

    @handler
    async def get_walls(self, _: Walls) -> tuple[Wall, ...]:
        return tuple(self.walls)


TREE = f"""
[actor.painter]
actor = "{__name__}:Painter"
"""


async def begun(nursery: trio.Nursery, more: str = "") -> System:
    system = System(load_text(TREE + more))
    await nursery.start(lambda task_status: system.root.run(task_status=task_status))
    return system


# S-1215
async def test_a_message_is_made_from_checked_fields() -> None:
    async with trio.open_nursery() as nursery:
        system = await begun(nursery)
        assert messages.tell(system.operations, "painter", "Paint", {"colour": "red", "coats": 2}) == "accepted"
        found = await messages.ask(system.operations, "painter", "Walls", {}, 5.0)
        reply: Any = found["reply"]
        assert (len(reply), reply[0]["colour"]) == (2, "red")
        for secret in ("hunter2", "abcdefgh"):
            assert secret not in str(found)
        nursery.cancel_scope.cancel()


# S-1215
@pytest.mark.parametrize(
    ("name", "kind", "fields", "what"),
    [
        ("paintr", "Paint", {}, "did you mean 'painter'"),
        ("painter", "Pain", {}, r'did you mean "?Paint"?.*it handles Paint, Walls'),
        ("painter", "Paint", {"colour": "blue"}, "colour: .*red"),
        ("painter", "Paint", {"colour": "red", "coats": "two"}, "coats: "),
        ("painter", "Paint", {"colour": "red", "cots": 1}, "cots: "),
        ("painter", "Paint", {}, "colour"),
    ],
)
async def test_what_does_not_fit_is_refused_with_what_would(
    name: str, kind: str, fields: Mapping[str, object], what: str
) -> None:
    async with trio.open_nursery() as nursery:
        system = await begun(nursery)
        with pytest.raises(OperationRefused, match=what):
            messages.tell(system.operations, name, kind, fields)
        nursery.cancel_scope.cancel()


# S-1215
async def test_over_the_socket_they_leave_an_event_without_the_content() -> None:
    with short_directory() as directory:
        path: Path = directory / "a.sock"
        async with trio.open_nursery() as nursery:
            system = await begun(nursery, f'[control]\nsocket = "{path}"\n')
            server = ControlServer(path, system, system.config.control)
            server.bind()
            nursery.start_soon(server.run)

            async def call(command: str, **arguments: Any) -> Any:
                return await trio.to_thread.run_sync(
                    lambda: client.call(path, command, timeout=PATIENCE, token=None, **arguments)
                )

            await call("tell", name="painter", message="Paint", fields={"colour": "red"})
            assert len((await call("ask", name="painter", message="Walls"))["reply"]) == 1
            with pytest.raises(ControlError, match="Paint is no request"):
                await call("ask", name="painter", message="Paint", fields={"colour": "red"})
            events = [event for event in system.services.events.recent() if isinstance(event, OperatorCommand)]
            assert [event.command for event in events] == ["tell", "ask", "ask"]
            assert "red" not in events[0].line()
            nursery.cancel_scope.cancel()
