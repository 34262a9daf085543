"""The tables that declare the tree: `[actor."<name>"]` and `[group.<name>]`. All durations are seconds."""

from __future__ import annotations

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, le, matches_re, optional

from runtime.child import AutoShutdown, GiveUp, Restart, Strategy
from runtime.config.runtime_sections import NAME
from runtime.core.mailbox import DEFAULT_CAPACITY, Overflow
from runtime.restart_limits import Backoff


@attrs.frozen
class MailboxTable:
    """`mailbox = { capacity = 64, overflow = "refuse" }`."""

    capacity: int = attrs.field(default=DEFAULT_CAPACITY, validator=and_(ge(1), le(1_000_000)))
    """Messages that wait at most in the user lane."""
    overflow: Overflow = Overflow.REFUSE


@attrs.frozen
class ActorTable:
    """`[actor."<name>"]`: one child of the supervisor, or with `for_each` one per entry of a section."""

    actor: str
    """The class, as `package.module:Class`."""
    args: dict[str, object] = attrs.field(factory=dict)
    """Start arguments, checked against the fields of the class."""
    restart: Restart = Restart.PERMANENT
    group: str | None = attrs.field(default=None, validator=optional(matches_re(NAME)))
    """The group that it belongs to; by default it stands right below the root."""
    needs: tuple[str, ...] = attrs.field(default=(), validator=deep_iterable(matches_re(NAME)))
    """Children and groups that must be up before this one starts; the name of a `for_each` table means all its children."""
    significant: bool = False
    shutdown: float = attrs.field(default=5.0, validator=ge(0))
    """Seconds to finish the current message and stop in order."""
    kill_grace: float = attrs.field(default=1.0, validator=ge(0))
    """Seconds between cancellation and the report that it did not stop."""
    start_timeout: float = attrs.field(default=10.0, validator=gt(0))
    backoff: Backoff = attrs.field(factory=Backoff)
    give_up: GiveUp = GiveUp.ESCALATE
    mailbox: MailboxTable = attrs.field(factory=MailboxTable)
    paused: bool = False
    """Start it suspended; `atlas resume NAME` lets it work."""
    for_each: str | None = attrs.field(default=None, validator=optional(matches_re(NAME)))
    """The keyed section that gives one child `<name>.<key>` for each of its entries."""


@attrs.frozen
class GroupTable:
    """`[group.<name>]`: a supervisor below the root, for the actors that say `group = "<name>"`.

    It starts and stops as one child of its own supervisor, with all that is in it.
    """

    parent: str | None = attrs.field(default=None, validator=optional(matches_re(NAME)))
    """The group that it belongs to; by default it stands right below the root."""
    strategy: Strategy = Strategy.ONE_FOR_ONE
    """Which siblings a restart of one of its children takes along."""
    intensity: int = attrs.field(default=5, validator=ge(0))
    """Restart attempts of its children allowed within `period` before the group gives up."""
    period: float = attrs.field(default=60.0, validator=gt(0))
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    """Whether the end of significant children ends the group."""
    restart: Restart = Restart.PERMANENT
    """A group that gave up has ended in order: a transient one is not restarted."""
    needs: tuple[str, ...] = attrs.field(default=(), validator=deep_iterable(matches_re(NAME)))
    """Children and groups outside of it that must be up before it starts, beside those that its actors need."""
    significant: bool = False
    backoff: Backoff = attrs.field(factory=Backoff)
    give_up: GiveUp = GiveUp.ESCALATE
    """What follows when the group gave up too often."""
