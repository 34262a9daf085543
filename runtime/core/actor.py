"""The base class of all actors, and the table of handlers that is built and checked when an actor's class is created."""

from __future__ import annotations

import dis
import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

import attrs

from runtime.core.ask import Deferred
from runtime.core.checks import check_hooks, check_no_handler_was_forgotten, check_state
from runtime.message import Message, Postponed, Request

if TYPE_CHECKING:
    from runtime.child import StopReason
    from runtime.core.context import Context

Handler = Callable[..., Awaitable[object]]
F = TypeVar("F", bound=Callable[..., Awaitable[object]])

_MARK = "__handler_scope__"
_AWAITING = frozenset({"GET_AWAITABLE", "GET_ANEXT", "BEFORE_ASYNC_WITH", "SEND", "YIELD_VALUE"})
"""One of these opcodes is in every coroutine function that can suspend."""


def handler(function: F) -> F:
    """Mark a method as the handler of the message type of its only argument.

    `async def f(self, message: SomeMessage) -> Reply`. The handler of a `Request[R]` is annotated `-> R`,
    `-> Deferred[R]` or `-> R | Deferred[R]`, any other `-> None`; either may add `| Postponed`. Violations raise TypeError
    when the class is created.
    """
    # Annotations are strings in modules with postponed evaluation; messages defined inside a function (tests, mostly)
    # can be resolved only with that function's names.
    definer = sys._getframe(1).f_back  # the documented way to reach the enclosing scope
    local = definer is not None and definer.f_locals is not definer.f_globals
    setattr(function, _MARK, dict(definer.f_locals) if local and definer is not None else {})
    return function


@attrs.define(eq=False)
class Actor:
    """An attrs class with private state that handles one message at a time.

    Fields with `init=True` are start arguments: each restart is given the same ones. Fields with `init=False` are the
    state of one incarnation: each restart begins with fresh ones, so their defaults must be factories. Whatever a hook
    or a handler raises ends the incarnation; its supervisor decides what follows.
    """

    context: Context = attrs.field(init=False, repr=False)
    """What the runtime offers to this incarnation. Set before `on_start`; not yet there in `__init__`."""

    handlers: ClassVar[Mapping[type[Message], Handler]] = {}
    """Message type -> handler, inherited ones included."""

    instant_handlers: ClassVar[Mapping[type[Message], Handler]] = {}
    """Those of them that contain no await, so that no time can pass while they run but their own."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        check_hooks(cls)
        check_no_handler_was_forgotten(cls, lambda member: hasattr(member, _MARK))
        check_state(cls)
        cls.handlers = _table(cls)
        cls.instant_handlers = {
            message: function for message, function in cls.handlers.items() if _is_instant(function)
        }

    def check_configuration(self, name: str, shutdown: float) -> Iterable[str]:
        """Say what is wrong with the start arguments, a sentence each that names the settings; by default nothing.

        Asked when a configuration is read (`atlas check`, `run`, `reload`), which then refuses it with its file and line, and
        before the first start, which then fails with StartRefused (78). `name` is the actor's, `shutdown` the seconds that a stop
        may take. The instance has no context yet: look at the arguments alone, open nothing. A settings class has the same
        method without arguments.
        """
        return ()

    async def on_start(self) -> None:
        """The start handshake: bounded by the spec's start timeout, no network.

        Raise to fail the start, `Ignore(reason)` to decline it.
        """

    async def after_start(self) -> None:
        """Runs before the first message, once the actor counts as started. May connect, may degrade.

        A stop that arrives meanwhile cancels it; `on_stop` still runs.
        """

    async def on_stop(self, reason: StopReason) -> None:
        """Runs when the incarnation was asked to stop or ended by itself; not after a crash or a kill.

        The crash of a task does not interrupt it, a kill does. Bounded by the stop's deadline, at which it is cut off
        (`StopCutOff`).
        """

    def on_undelivered(self, messages: Sequence[Message], reason: str) -> None:
        """Gets the told messages that still waited when the actor stopped for good: oldest first, postponed ones included.

        Called once for each final stop (stopped for good, given up, parked), on the last instance, after its tasks have
        ended; not if nothing waited, or if it was never started. Must not wait. Each message is a dead letter as well.
        Requests are not among them: they have failed with ActorDead; nor is the message that was being handled at a crash. An
        exception in here is recorded as a dead letter and goes no further. What must not be lost belongs into the database.
        """

    def inspect(self) -> Mapping[str, object]:
        """JSON-able state for operators. Called on the loop at any time, also amid a handler: read only."""
        return {}


def _table(cls: type[Actor]) -> Mapping[type[Message], Handler]:
    table: dict[type[Message], Handler] = {}
    owners: dict[type[Message], str] = {}
    for base in reversed(cls.__mro__):
        inherited = {message: name for message, name in owners.items() if name not in base.__dict__}
        fresh: dict[type[Message], str] = {}
        for name, member in base.__dict__.items():
            scope = getattr(member, _MARK, None) if isinstance(member, types.FunctionType) else None
            if scope is None:
                continue
            message = _checked(f"{cls.__module__}.{base.__qualname__}.{name}", member, scope)
            other = fresh.get(message) or inherited.get(message)
            if other is not None:
                raise TypeError(
                    f"{cls.__module__}.{cls.__qualname__} has two handlers for {message.__name__}: {other} and {name}; "
                    "keep one, or give the overriding handler the same method name"
                )
            fresh[message] = name
        for message in [message for message in table if message not in inherited]:
            del table[message]
        owners = {**inherited, **fresh}
        table |= {message: base.__dict__[name] for message, name in fresh.items()}
    return table


def _is_instant(function: Handler) -> bool:
    return _AWAITING.isdisjoint(instruction.opname for instruction in dis.get_instructions(function))


def _checked(where: str, function: types.FunctionType, scope: Mapping[str, object]) -> type[Message]:
    """The message type of a handler; raises TypeError when the handler's signature is not one."""
    code = function.__code__
    if not code.co_flags & inspect.CO_COROUTINE:
        raise TypeError(f"handler {where} must be `async def`")
    if code.co_argcount != 2 or code.co_kwonlyargcount:
        raise TypeError(f"handler {where} must take exactly one argument, the message")
    try:
        hints = typing.get_type_hints(function, localns=dict(scope))
    except NameError as error:
        raise TypeError(f"handler {where}: cannot resolve its annotations: {error}") from error
    message = hints.get(code.co_varnames[1])
    if not (isinstance(message, type) and issubclass(message, Message)):
        raise TypeError(f"handler {where}: its argument must be annotated with a Message, not {message!r}")
    if "return" not in hints:
        raise TypeError(f"handler {where}: its reply type is missing; write `-> None` for a plain message")
    _check_reply(where, message, hints["return"])
    return message


def _check_reply(where: str, message: type[Message], annotated: object) -> None:
    wanted = reply_type(message)
    if isinstance(wanted, TypeVar):
        return
    is_union = typing.get_origin(annotated) in (typing.Union, types.UnionType)
    given = set(typing.get_args(annotated)) if is_union else {annotated}
    given.discard(Postponed)
    wanted_is_union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    plain = set(typing.get_args(wanted)) if wanted_is_union else {wanted}
    deferred = {member for member in given if typing.get_origin(member) is Deferred}
    good_deferred = issubclass(message, Request) and all(typing.get_args(member)[0] == wanted for member in deferred)
    rest = given - deferred
    if (not deferred or good_deferred) and rest in (plain, set()) and (rest or deferred):
        return
    name = getattr(wanted, "__name__", None) if not typing.get_args(wanted) else None
    raise TypeError(
        f"handler {where} is annotated to return {annotated!r}, but {message.__name__} is answered with "
        f"{name or wanted!r}"
    )


def reply_type(message: type[Message]) -> object:
    """The R of a `Request[R]` (a TypeVar where it is open), NoneType for a plain message."""
    if not issubclass(message, Request):
        return type(None)
    for base in message.__mro__:
        for parent in getattr(base, "__orig_bases__", ()):
            if typing.get_origin(parent) is Request:
                argument = typing.get_args(parent)[0]
                return type(None) if argument is None else argument
    raise TypeError(f"{message.__name__} must name its reply type: class {message.__name__}(Request[…])")
