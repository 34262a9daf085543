"""Commands of the control socket, and how a room adds its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import attrs

from runtime.config.config_file import dotted
from runtime.config.convert import convert
from runtime.config.errors import Invalid
from runtime.control.protocol import USAGE, ControlError
from runtime.operations.operations import Operations
from runtime.operations.reload import Reloader
from runtime.operations.running import RunningSystem
from runtime.operators.identity import Identity
from runtime.wording import did_you_mean

A = TypeVar("A")

SendItem: TypeAlias = Callable[[object], Awaitable[None]]


@attrs.frozen
class Operator:
    """Who sits at the other end of the socket, as the kernel says."""

    pid: int
    uid: int
    identity: Identity | None = None
    """Which operator that is; None before it is known."""

    def __str__(self) -> str:
        """`an operator (uid 0: anna, support, by token)`, or as much of it as is known."""
        return f"an operator (uid {self.uid}{'' if self.identity is None else f': {self.identity}'})"


class OperableSystem(RunningSystem, Protocol):
    """A running system with what operators do to it."""

    operations: Operations
    reloader: Reloader


@attrs.frozen
class ControlCall:
    """One request that is being served."""

    system: OperableSystem
    caller: Operator
    item: SendItem
    """Send one `item` line; only for commands that stream."""


@attrs.frozen
class ControlCommand:
    """A command by name."""

    name: str
    arguments: type
    """An attrs class; what the client sends is checked against it."""
    run: Callable[[ControlCall, Any], Awaitable[object]]
    """Returns what the client gets as `result`: values that JSON knows, attrs instances, enums."""
    streams: bool = False
    """It sends items until it is done or the client hangs up, which cancels it."""
    changes: bool = True
    """It changes something, so that an event tells who called it."""


@attrs.frozen
class NoArguments:
    """For commands that take none."""


COMMANDS: Final[dict[str, ControlCommand]] = {}
"""All commands of this process: those of the runtime, and those that imported rooms have added."""


def control_command(
    name: str, arguments: type[A], *, streams: bool = False, changes: bool = True
) -> Callable[[Callable[[ControlCall, A], Awaitable[object]]], Callable[[ControlCall, A], Awaitable[object]]]:
    """Add a command to every control socket of this process; the module must be imported by then.

    An actor's module is imported when the configuration names the actor, so a room's commands exist where its actors run.
    Raises ValueError when the name is taken.

        @control_command("leases", NoArguments, changes=False)
        async def leases(call: Call, arguments: NoArguments) -> object:
            return await call.system.registry.lookup("pool.main").ask(Holders(), within=2.0)
    """

    def add(run: Callable[[ControlCall, A], Awaitable[object]]) -> Callable[[ControlCall, A], Awaitable[object]]:
        known = COMMANDS.get(name)
        if known is not None and (known.run.__module__, known.run.__qualname__) != (run.__module__, run.__qualname__):
            raise ValueError(f"a control command {name!r} exists already, from {known.run.__module__}")
        COMMANDS[name] = ControlCommand(name, arguments, run, streams, changes)
        return run

    return add


def find_command(commands: Mapping[str, ControlCommand], name: str) -> ControlCommand:
    """Raises ControlError (usage) with the nearest name when there is no such command."""
    command = commands.get(name)
    if command is None:
        raise ControlError(f'there is no command "{name[:60]}"{did_you_mean(name[:60], commands)}', USAGE)
    return command


def check_arguments(command: ControlCommand, arguments: Mapping[str, object]) -> object:
    """The arguments as the command's class. Raises ControlError (usage) that lists everything wrong with them."""
    try:
        checked: object = convert(arguments, command.arguments)
    except Invalid as error:
        wrong = [f"{dotted(path)}: {message}" if path else message for path, message in error.found]
        raise ControlError(f"{command.name}: {'; '.join(wrong)}", USAGE) from error
    return checked
