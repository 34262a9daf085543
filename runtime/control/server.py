"""The control socket's server.

It is a task of its own beside the actors and asks none of them to answer for it, so it works while any of them is wedged;
only a blocked loop silences it. Whatever a client sends or does, it costs that client's connection and nothing else:
request lines, connections, silence and unread answers are bounded.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs
import trio

from runtime.config.runtime_sections import ControlSettings
from runtime.control.command import (
    COMMANDS,
    ControlCall,
    ControlCommand,
    OperableSystem,
    Operator,
    check_arguments,
    find_command,
)
from runtime.control.protocol import UNAVAILABLE, USAGE, ControlError, decode_request, encode, error_line
from runtime.control.socket import short_path
from runtime.correlation import correlated
from runtime.errors import StartRefused
from runtime.events import Event
from runtime.log.logs import get_logger
from runtime.operators.identity import NotAllowed, Operators, demand
from runtime.operators.least_roles import least_role_of_call

_CHUNK = 65536
_log = get_logger("atlas.control")


@attrs.frozen
class OperatorCommand(Event):
    """An operator used the control socket to change something, or was refused what the role does not allow."""

    level: ClassVar[int] = 20

    command: str
    target: str
    pid: int
    uid: int
    outcome: str
    who: str = ""
    """The operator's name, role, and by what they were recognised."""

    def line(self) -> str:
        """Which operator did what to which actor, and the outcome."""
        target = f" {self.target}" if self.target else ""
        who = f" {self.who}" if self.who else ""
        return f"operator (uid {self.uid}, pid {self.pid}){who}: {self.command}{target}: {self.outcome}"


class ControlServer:
    """Serves one socket until cancelled."""

    def __init__(
        self,
        path: Path,
        system: OperableSystem,
        settings: ControlSettings,
        commands: Mapping[str, ControlCommand] = COMMANDS,
    ) -> None:
        self._path = path
        self._system = system
        self._settings = settings
        self._commands = commands
        self._connections = 0

        self._bound: socket.socket | None = None

    def bind(self) -> None:
        """Take the path, mode 0600. Clients can connect from now on and are served by `run`.

        Replaces a socket file that is there: the caller holds the lock that proves its owner dead. Raises StartRefused
        (exit code 69) when the path cannot be bound.
        """
        self._bound = _bind(self._path)

    async def run(self) -> None:
        """Serve until cancelled, then remove the socket file. Needs `bind` first."""
        assert self._bound is not None, "bind comes first"
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._bound))
        try:
            async with listener, trio.open_nursery() as nursery:
                while True:
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        # most likely out of file descriptors: a pause lets some come back, and the socket stays open
                        _log.warning("the control socket could not accept a connection", error=error)
                        await trio.sleep(0.5)
                        continue
                    nursery.start_soon(self._serve, stream)
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._connections += 1
        try:
            async with stream:
                if self._connections > self._settings.max_connections:
                    text = (
                        f"{self._settings.max_connections} connections are open already "
                        "([control] max_connections changes this)"
                    )
                    await self._send(stream, error_line(ControlError(text, UNAVAILABLE)))
                    return
                await self._requests(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # the client is gone; its loss
        except Exception as error:  # noqa: BLE001  one client's connection must not end the server
            _log.warning("a control connection failed", error=error)
        finally:
            self._connections -= 1

    async def _requests(self, stream: trio.SocketStream) -> None:
        caller = _peer(stream)
        buffer = bytearray()
        while True:
            with trio.move_on_after(self._settings.idle_timeout) as patience:
                line = await self._line(stream, buffer)
            if patience.cancelled_caught or line is None:
                return
            if len(line) > self._settings.max_request:
                text = (
                    f"a request is at most {self._settings.max_request} bytes long ([control] max_request changes this)"
                )
                await self._send(stream, error_line(ControlError(text, USAGE)))
                return
            if line.strip():
                with correlated():
                    await self._answer(stream, caller, line)

    async def _line(self, stream: trio.SocketStream, buffer: bytearray) -> bytes | None:
        """The next line without its end; more than the limit when there is none within it; None at the end."""
        searched = 0
        while True:
            end = buffer.find(b"\n", searched)
            if end >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                return line
            searched = len(buffer)
            if searched > self._settings.max_request:
                return bytes(buffer)
            chunk = await stream.receive_some(_CHUNK)
            if not chunk:
                return None
            buffer += chunk

    async def _answer(self, stream: trio.SocketStream, caller: Operator, line: bytes) -> None:
        target, command, is_told = "", None, False
        try:
            name, arguments, token, meant = decode_request(line)
            self._refuse_another_installation(meant)
            command = find_command(self._commands, name)
            is_told = command.changes
            target = str(arguments.get("name", ""))
            caller = self._recognise(caller, command, arguments, token)
            checked = check_arguments(command, arguments)
            answer: dict[str, object] = {"result": await self._run(stream, caller, command, checked)}
            outcome = "done"
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:  # noqa: BLE001  every error is the caller's answer, never the server's end
            answer = error_line(error)
            outcome = f"refused: {error}"
            if isinstance(error, NotAllowed):
                is_told, caller = True, attrs.evolve(caller, identity=error.who)
        if command is not None and is_told:
            who = "" if caller.identity is None else str(caller.identity)
            self._system.services.events.emit(
                OperatorCommand("control", command.name, target, caller.pid, caller.uid, outcome, who)
            )
        await self._send(stream, answer)

    def _refuse_another_installation(self, meant: str | None) -> None:
        """Raise ControlError (usage) for a command that was called with the configuration of another system."""
        running = self._system.config.path
        if meant is None or running is None or meant == str(running.resolve()):
            return
        raise ControlError(
            f"nothing was done: this command's configuration is {meant}, and the system that answers on {self._path} runs "
            f"{running.resolve()} (pid {os.getpid()}). Name that one with --config, or start this one with a socket of its own "
            "([control] socket)",
            USAGE,
        )

    def _recognise(
        self, caller: Operator, command: ControlCommand, arguments: Mapping[str, object], token: str | None
    ) -> Operator:
        """Who calls, by the token or by the account that the kernel names. Raises NotAllowed if they may not."""
        who = Operators(self._system.config.operators).identify(caller.uid, token)
        demand(who, least_role_of_call(command.name, arguments), f"`{command.name}`")
        return attrs.evolve(caller, identity=who)

    async def _run(
        self, stream: trio.SocketStream, caller: Operator, command: ControlCommand, checked: object
    ) -> object:
        async def item(value: object) -> None:
            await self._send(stream, {"item": value})

        call = ControlCall(self._system, caller, item)
        if not command.streams:
            return await command.run(call, checked)
        outcome: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_hung_up, stream, nursery.cancel_scope)
            try:
                outcome.append(await command.run(call, checked))
            except Exception as error:  # noqa: BLE001  # raised below, outside the nursery that would wrap it
                outcome.append(error)
            nursery.cancel_scope.cancel(reason="the command is done")
        if not outcome:
            raise trio.BrokenResourceError("the client hung up")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    async def _send(self, stream: trio.SocketStream, line: Mapping[str, object]) -> None:
        with trio.move_on_after(self._settings.idle_timeout) as patience:
            await stream.send_all(encode(line, redacted=True))
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read its answer")


async def _until_hung_up(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some(_CHUNK):
            pass  # a client that talks while it is being answered is not listened to
    except trio.BrokenResourceError:
        pass
    scope.cancel(reason="the client hung up")


def _peer(stream: trio.SocketStream) -> Operator:
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    assert isinstance(raw, bytes)
    pid, uid, _ = struct.unpack("3i", raw)
    return Operator(pid, uid)


def _bind(path: Path) -> socket.socket:
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # the file must never exist with more rights than these, not even between two calls
    previous = os.umask(0o177)
    try:
        with short_path(path) as within_the_limit:
            listening.bind(within_the_limit)
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise StartRefused(
            f"the control socket {path} cannot be bound: {error.strerror or error}", UNAVAILABLE
        ) from error
    finally:
        os.umask(previous)
    return listening
