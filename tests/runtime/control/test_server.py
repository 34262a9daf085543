"""The control server: bounded in every direction, and open to commands of other rooms."""

from __future__ import annotations

import json
import os
import select
import socket as sockets
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from runtime.config.loader import load_text
from runtime.config.runtime_sections import ControlSettings
from runtime.control import client, command
from runtime.control.client import ControlTimeout, ControlUnreachable
from runtime.control.command import COMMANDS, ControlCall, ControlCommand, NoArguments, control_command
from runtime.control.protocol import ControlError
from runtime.control.server import ControlServer, OperatorCommand
from runtime.errors import StartRefused
from runtime.system.system import System
from tests.runtime.atlas_process import PATIENCE, short_directory


@attrs.frozen
class Amount:
    """Of what."""

    amount: int = attrs.field(default=1, validator=attrs.validators.ge(1))


async def _double(call: ControlCall, arguments: Amount) -> object:
    return {"doubled": arguments.amount * 2, "pid": call.caller.pid, "uid": call.caller.uid}


async def _fail(call: ControlCall, arguments: NoArguments) -> object:
    raise ZeroDivisionError("no")


async def _flood(call: ControlCall, arguments: Amount) -> object:
    for _ in range(arguments.amount):
        await call.item("x" * 1000)
    return "done"


async def _hang(call: ControlCall, arguments: NoArguments) -> object:
    await trio.sleep_forever()
    raise AssertionError


COMMANDS_HERE = {
    each.name: each
    for each in (
        ControlCommand("double", Amount, _double),
        ControlCommand("fail", NoArguments, _fail),
        ControlCommand("flood", Amount, _flood, streams=True, changes=False),
        ControlCommand("wait", NoArguments, _hang, changes=False),
    )
}


@pytest.fixture
def path() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "a.sock"


@asynccontextmanager
async def serving(
    path: Path, settings: ControlSettings | None = None, commands: Mapping[str, ControlCommand] | None = None
) -> AsyncIterator[System]:
    system = System(load_text(f'[control]\nsocket = "{path}"\n'))
    server = ControlServer(path, system, settings or ControlSettings(), commands or COMMANDS_HERE)
    server.bind()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield system
        nursery.cancel_scope.cancel()


async def call(path: Path, command: str, **arguments: object) -> Any:
    return await trio.to_thread.run_sync(
        lambda: client.call(path, command, timeout=PATIENCE, token=None, config=None, **arguments)
    )


async def test_a_call_returns_the_result_and_leaves_an_event_with_the_caller(path: Path) -> None:
    async with serving(path) as system:
        assert await call(path, "double", amount=21) == {"doubled": 42, "pid": os.getpid(), "uid": os.geteuid()}
        (event,) = system.services.events.recent()
        assert isinstance(event, OperatorCommand)
        assert (event.command, event.pid, event.uid, event.outcome) == ("double", os.getpid(), os.geteuid(), "done")
    assert not path.exists()


async def test_refusals_and_failures_are_answers_with_exit_codes(path: Path) -> None:
    async with serving(path):
        with pytest.raises(ControlError, match=r"double: amount: must be >= 1, got 0") as refused:
            await call(path, "double", amount=0)
        assert refused.value.exit_code == 64
        with pytest.raises(ControlError, match="ZeroDivisionError: no") as failed:
            await call(path, "fail")
        assert failed.value.exit_code == 70
        with pytest.raises(ControlError, match='did you mean "double"'):
            await call(path, "duoble")
        assert await call(path, "double") == {"doubled": 2, "pid": os.getpid(), "uid": os.geteuid()}


async def test_items_arrive_before_the_result(path: Path) -> None:
    async with serving(path):
        items = await trio.to_thread.run_sync(lambda: list(client.stream(path, "flood", amount=3)))
        assert items == ["x" * 1000] * 3


async def test_a_client_that_hangs_up_ends_its_stream(path: Path) -> None:
    began, ended = trio.Event(), trio.Event()

    async def stream(call: ControlCall, arguments: NoArguments) -> object:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    commands = COMMANDS_HERE | {"stream": ControlCommand("stream", NoArguments, stream, streams=True)}
    async with serving(path, commands=commands):
        connection = await trio.open_unix_socket(path)
        with trio.fail_after(PATIENCE):
            await connection.send_all(b'{"command": "stream"}\n')
            await began.wait()
            await connection.aclose()
            await ended.wait()
        assert (await call(path, "double"))["doubled"] == 2


async def test_a_client_that_does_not_read_loses_its_connection(path: Path) -> None:
    async with serving(path, ControlSettings(idle_timeout=0.1)):
        greedy = await trio.open_unix_socket(path)
        await greedy.send_all(b'{"command": "flood", "arguments": {"amount": 1000000}}\n')
        hung_up = select.poll()
        hung_up.register(greedy.socket.fileno(), select.POLLRDHUP)
        assert await trio.to_thread.run_sync(hung_up.poll, PATIENCE * 1000)
        received = 0
        while chunk := await _receive(greedy):
            received += len(chunk)
        assert 0 < received < 1_000_000 * 1000
        await greedy.aclose()
        assert (await call(path, "double"))["doubled"] == 2


async def _receive(stream: trio.SocketStream) -> bytes:
    try:
        return bytes(await stream.receive_some(65536))
    except trio.BrokenResourceError:
        return b""


async def test_a_silent_client_is_shown_the_door(path: Path) -> None:
    async with serving(path, ControlSettings(idle_timeout=0.05)):
        silent = await trio.open_unix_socket(path)
        with trio.fail_after(PATIENCE):
            await silent.send_all(b'{"command"')
            assert await _receive(silent) == b""
        await silent.aclose()


async def test_a_file_that_is_no_socket_is_not_removed(path: Path) -> None:
    path.write_text("mine")
    system = System(load_text(f'[control]\nsocket = "{path}"\n'))
    with pytest.raises(StartRefused, match="cannot be bound: Address already in use") as raised:
        ControlServer(path, system, ControlSettings()).bind()
    assert raised.value.exit_code == 69
    assert path.read_text() == "mine"


async def test_no_answer_in_time_says_what_may_be_wrong(path: Path) -> None:
    async with serving(path):
        with pytest.raises(ControlTimeout, match=r"no answer to wait within 0.1 s.*event loop") as raised:
            await trio.to_thread.run_sync(lambda: client.call(path, "wait", timeout=0.1))
        assert raised.value.exit_code == 69


def test_a_server_that_hangs_up_or_talks_nonsense_is_an_error_and_no_traceback(path: Path) -> None:
    with sockets.socket(sockets.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        for answer, error, text in (
            (b"", ControlUnreachable, "hung up before it answered status"),
            (b"nonsense\n", ControlError, "not JSON"),
            (b'{"error": {"message": "no", "exit_code": 75}}\n', ControlError, "no"),
        ):
            lines = client.stream(path, "status", timeout=PATIENCE)
            with pytest.raises(error, match=text):
                _answer_next(listening, lines, answer)


def _answer_next(listening: sockets.socket, lines: Iterator[object], answer: bytes) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            request = json.loads(connection.makefile("rb").readline())
            assert request == {"command": "status", "arguments": {}}
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        next(lines)
    finally:
        thread.join(PATIENCE)


def test_a_room_adds_its_command_by_decorating_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.control.command.COMMANDS", dict(COMMANDS))
    control_command("double", Amount)(_double)
    control_command("double", Amount)(_double)  # its module was imported again
    assert command.COMMANDS["double"].run is _double
    with pytest.raises(ValueError, match=r"a control command 'double' exists already, from tests.runtime.control"):
        control_command("double", NoArguments)(_fail)
    with pytest.raises(ValueError, match=r"'status' exists already, from runtime.control.runtime_commands"):
        control_command("status", NoArguments)(_fail)
