"""What is refused before an actor runs: mistakes in its class that would else show as an actor that silently does nothing, or
whose incarnations share what each should have of its own; and what actors and settings say against their configuration.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import attrs

from runtime.error_text import error_text
from runtime.errors import StartRefused
from runtime.message import Message

if TYPE_CHECKING:
    from runtime.core.actor import Actor

_COROUTINES: Final = ("on_start", "after_start", "on_stop")
_PLAIN: Final = ("on_undelivered", "inspect", "check_configuration")
_HANDLER_ARGUMENTS: Final = 2
_A_FIELD: Final = type(attrs.field())
_FACTORY: Final = cast("type[object]", attrs.Factory)


def check_hooks(cls: type) -> None:
    """Raise TypeError for a hook that must be `async def` and is not, or that must not be and is."""
    for name, member in vars(cls).items():
        if not isinstance(member, types.FunctionType) or name not in (*_COROUTINES, *_PLAIN):
            continue
        is_coroutine = inspect.iscoroutinefunction(inspect.unwrap(member))
        if is_coroutine != (name in _COROUTINES):
            wanted = "`async def`" if name in _COROUTINES else "`def`, not `async def`"
            raise TypeError(f"{cls.__module__}.{cls.__qualname__}.{name} must be {wanted}")


def check_no_handler_was_forgotten(cls: type, is_handler: typing.Callable[[object], bool]) -> None:
    """Raise TypeError for a public coroutine method that takes one message and is no handler: its messages would be dropped.

    One that is called with a message by the actor itself begins with an underscore. An annotation that cannot be read here is
    passed over.
    """
    local: Mapping[str, object] | None = None
    for name, member in vars(cls).items():
        if name.startswith("_") or not isinstance(member, types.FunctionType) or is_handler(member):
            continue
        code = member.__code__
        if not inspect.iscoroutinefunction(member) or code.co_argcount != _HANDLER_ARGUMENTS or code.co_kwonlyargcount:
            continue
        local = _names_around_the_class() if local is None else local
        wanted = _annotation_of(member, code.co_varnames[1], local)
        if isinstance(wanted, type) and issubclass(wanted, Message) and wanted is not Message:
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}.{name} takes a {wanted.__name__} and is no handler: put @handler above it, "
                "or let its name begin with an underscore if the actor calls it itself"
            )


def check_state(cls: type) -> None:
    """Raise TypeError for a field of a finished attrs class whose default is one mutable object for all incarnations."""
    for field in vars(cls).get("__attrs_attrs__", ()):
        default = field.default
        if isinstance(default, _FACTORY) or field.inherited:
            continue
        kind = type(default)
        if getattr(kind, "__hash__", None) is None or kind.__module__.partition(".")[0] == "trio":
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}.{field.name} has one {kind.__name__} as its default, which all "
                "incarnations would share: use attrs.field(factory=…)"
            )


def forgotten_fields(cls: type) -> str | None:
    """Say which class of an actor's has fields and no `@attrs.define`; None if all is well.

    Only now that it is used: while it is created nothing can be known of the decorator that may follow.
    """
    for base in cls.__mro__:
        if (
            not base.__module__.startswith("runtime.core.")
            and "__attrs_attrs__" not in vars(base)
            and base is not object
        ):
            fields = [name for name, wanted in inspect.get_annotations(base).items() if not _is_class_variable(wanted)]
            fields += [name for name, value in vars(base).items() if isinstance(value, _A_FIELD) and name not in fields]
            if fields:
                return (
                    f"{base.__module__}.{base.__qualname__} is not an attrs class: put @attrs.define above class "
                    f"{base.__name__}, or all incarnations share its {', '.join(fields)}"
                )
    return None


def _is_class_variable(wanted: object) -> bool:
    if isinstance(wanted, str):
        return wanted.replace(" ", "").partition("[")[0].rpartition(".")[2] == "ClassVar"
    return wanted is ClassVar or typing.get_origin(wanted) is ClassVar


def _annotation_of(function: types.FunctionType, argument: str, local: Mapping[str, object]) -> object:
    wanted = function.__annotations__.get(argument)
    if not isinstance(wanted, str):
        return wanted
    holder = type("holder", (), {"__annotations__": {argument: wanted}, "__module__": function.__module__})
    try:
        return typing.get_type_hints(holder, localns=dict(local))[argument]
    except Exception:  # noqa: BLE001  whatever stands there; of a handler it is an error, of this nothing is known
        return None


def _names_around_the_class() -> Mapping[str, object]:
    """The local names where the class statement stands, for messages that are defined inside a function."""
    frame = sys._getframe(1)  # the documented way to reach an enclosing scope
    while frame.f_back is not None and (
        frame.f_code.co_name == "__init_subclass__" or frame.f_globals.get("__name__") == __name__
    ):
        frame = frame.f_back
    return frame.f_locals if frame.f_locals is not frame.f_globals else {}


def refuse_forgotten_fields(make: Callable[[], Actor]) -> None:
    """Raise TypeError if the class of what `make` makes lacks its `@attrs.define`."""
    made = make if isinstance(make, type) else None
    if made is None:
        try:
            made = type(make())
        except Exception:  # noqa: BLE001  the start will say what is wrong with its arguments
            return
    forgotten = forgotten_fields(made)
    if forgotten is not None:
        raise TypeError(forgotten)


def wrong_with_settings(settings: object) -> list[str]:
    """Return what a settings instance says against itself by its `check_configuration()`, if it has one."""
    check = getattr(settings, "check_configuration", None)
    if check is None or not attrs.has(type(settings)):
        return []
    try:
        return [str(sentence) for sentence in check()]
    except Exception as error:  # noqa: BLE001  a check that fails has not approved
        return [f"it cannot be checked: {error_text(error)}"]


def wrong_with_actor(actor: Actor, name: str, shutdown: float) -> list[str]:
    """Return what an actor says against its own start arguments, without what is wrong with each settings class among them."""
    try:
        return [str(sentence) for sentence in actor.check_configuration(name, shutdown)]
    except Exception as error:  # noqa: BLE001  as above
        return [f"it cannot be checked: {error_text(error)}"]


def refuse_wrong_arguments(actor: Actor, name: str, shutdown: float) -> None:
    """Raise StartRefused (78) with everything that the actor and the settings among its arguments say against them.

    Raises TypeError for a class whose `@attrs.define` was forgotten, or whose state would be shared.
    """
    forgotten = forgotten_fields(type(actor))
    if forgotten is not None:
        raise TypeError(forgotten)
    check_state(type(actor))  # of a class without slots nothing was known before
    found = wrong_with_actor(actor, name, shutdown)
    for field in attrs.fields(cast("Any", type(actor))):
        if field.init:
            found += wrong_with_settings(getattr(actor, field.name))
    if found:
        raise StartRefused("; ".join(f"{name}: {sentence}" for sentence in found), exit_code=os.EX_CONFIG)
