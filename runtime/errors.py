"""What can go wrong between actors, and what ends a process: each text says what happened to which actor, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from runtime.message import Message


class AtlasError(Exception):
    """Base of all errors of this runtime. The command line prints its text and exits with `exit_code`."""

    exit_code: ClassVar[int] = 70


def unwrap_group(error: BaseException) -> BaseException:
    """The one exception inside `error`, however many groups of one are around it; a group of several, or no group, as it is.

    A nursery puts a group around what its body or one task raises. To raise what comes out:

        except BaseExceptionGroup as group:
            error = unwrap_group(group)
            if error is group:
                raise
            raise error from None
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class ConfigError(AtlasError):
    """The configuration is wrong; nothing was started."""

    exit_code: ClassVar[int] = 78


class UnknownActor(AtlasError):
    """No actor has this name. The text offers the nearest one."""

    def __init__(self, name: str, nearest: str | None) -> None:
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__(f"no actor is named {name!r}{hint} (`atlas status` lists all names)")
        self.name = name
        self.nearest = nearest


class AskError(AtlasError):
    """An ask or a send that was not answered or accepted. `actor` is the callee's name, `message` what was sent."""

    def __init__(self, actor: str, message: Message, text: str) -> None:
        super().__init__(text)
        self.actor = actor
        self.message = message


class ActorCrashed(AskError):
    """The callee ended while it handled this very message, owed a deferred reply to it, or had postponed it.

    What it had done by then is unknown: repeat only what is idempotent. The callee's own error is the `__cause__`.
    """


class ActorRestarting(AskError):
    """The callee is between two incarnations and no handler has looked at the message: repeating it is safe."""


class ActorDead(AskError):
    """The callee was stopped for good or parked and has not looked at the message."""


class AskTimeout(AskError):
    """No reply before the deadline. The text says whether the message was waiting, handled or deferred by then."""


class MailboxFull(AskTimeout):
    """The deadline passed before there was room in the callee's mailbox: it has not seen the message."""


class WouldDeadlock(AskError):
    """The ask (or the send to a full mailbox) was refused: each actor on `path` would wait for the next one for ever."""

    def __init__(self, actor: str, message: Message, path: Sequence[str]) -> None:
        super().__init__(
            actor,
            message,
            f"{type(message).__name__} to {actor!r} would deadlock: {' -> '.join(path)}, each waiting for the next; "
            "tell instead of asking, defer the reply, or ask from a task of the actor (context.start_task)",
        )
        self.path = tuple(path)
        """Names, from the actor that was refused round to itself."""


class Unhandled(AskError):
    """The callee has no handler for this type of message."""

    def __init__(self, actor: str, message: Message, handled: Sequence[str]) -> None:
        super().__init__(
            actor,
            message,
            f"{actor!r} has no handler for {type(message).__name__}; it handles {', '.join(sorted(handled)) or 'nothing'}",
        )


class TooManyPostponed(AtlasError):
    """An actor postponed more messages than its mailbox may hold; raised in its handler, so it crashes."""


class StillRunning(AtlasError):
    """Something ended of which a part still runs, and takes its place for as long as it does."""


class SpawnRefused(AtlasError):
    """An actor was not spawned. Nothing was started, and nothing is left of it."""


class PortalClosed(AtlasError):
    """A thread called through a portal whose loop has ended."""


class NameTaken(SpawnRefused):
    """Another actor of the system has this name, or a task of a former one that does not end."""


class TooManyChildren(SpawnRefused):
    """The actor has as many children as `max_children` allows."""


class Ignore(AtlasError):
    """Raised by `on_start` to say that this actor is not needed here: it is not started, and that is no failure."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class StartRefused(AtlasError):
    """Raised by `on_start` when starting makes no sense; at boot the process leaves with `exit_code`."""

    def __init__(self, message: str, exit_code: int = 70) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # one error, several codes: the class only holds the default


class Fatal(AtlasError):
    """Raised anywhere in an actor: the whole process stops in order and leaves with `exit_code`."""

    def __init__(self, message: str, exit_code: int = 70) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # as above


class LeaseHeldAcrossCall(AtlasError):
    """A call over the network, or an ask, while a database lease is held. Names the lease's and the call's site."""


class Killed(AtlasError):
    """Raised by an armed failpoint: the actor dies here on purpose."""

    def __init__(self, actor: str, point: str) -> None:
        super().__init__(f"{actor!r} was killed at its failpoint {point!r}")
        self.actor = actor
        self.point = point
