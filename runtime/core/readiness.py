"""Whether the system as a whole is ready: what keeps actors from their work, and how much of that it can do without.

Most actors are needed. Others stand for one of several of a kind (a node): the system is ready while as many of them as are
required have no trouble, and what is wrong with the others is said without making it unready.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import attrs

from runtime.redaction import one_line, redact

if TYPE_CHECKING:
    from runtime.core.address import Address

Required = Literal["any", "all"] | int
"""How many of a kind have to be ready: one, all, or so many."""


@attrs.frozen
class Trouble:
    """Something that keeps an actor from its work, or harms it."""

    about: str
    """Which of a kind it is about, `<kind>.<name>`; empty: the actor itself."""
    kind: str
    """One word, for metrics."""
    why: str
    blocks: bool
    """False: it is said, and takes no readiness away."""


class Troubles:
    """What an incarnation has said of its own readiness."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], Trouble] = {}

    def set(self, kind: str, why: str, about: str, *, blocks: bool) -> None:
        """See Context.trouble."""
        if why:
            # it is shown to whoever asks whether the service is ready
            self._all[about, kind] = Trouble(about, kind, one_line(redact(why)), blocks)
        else:
            self._all.pop((about, kind), None)

    def set_ready(self, is_ready: bool, why: str) -> None:
        """See Context.ready."""
        self.set("itself", why if is_ready else why or "not ready", "", blocks=not is_ready)

    def clear(self) -> None:
        """Another incarnation begins."""
        self._all.clear()

    def in_order(self) -> list[Trouble]:
        """All of them, those that block first."""
        return sorted(self._all.values(), key=lambda trouble: not trouble.blocks)


@attrs.frozen
class OneOf:
    """An actor stands for one of several of a kind."""

    kind: str
    name: str
    required: Required

    @property
    def about(self) -> str:
        """What a trouble with it is about."""
        return f"{self.kind}.{self.name}"


@attrs.frozen
class Reason:
    """Why the system is not ready, or what is wrong although it is."""

    actor: str
    about: str
    kind: str
    why: str


@attrs.frozen
class Readiness:
    """What an observer outside is told."""

    not_ready: tuple[Reason, ...]
    """Why the system is not ready; empty if it is."""
    degraded: tuple[Reason, ...]
    """What is wrong and takes no readiness away."""

    @property
    def is_ready(self) -> bool:
        """Whether it is ready."""
        return not self.not_ready


def in_words(reasons: Iterable[Reason]) -> Mapping[str, str]:
    """The reasons in words by actor, several of one actor together."""
    words: dict[str, list[str]] = {}
    for reason in reasons:
        words.setdefault(reason.actor, []).append(reason.why)
    return {actor: "; ".join(whys) for actor, whys in words.items()}


def judge_readiness(addresses: Iterable[Address]) -> Readiness:
    """Whether a system of these actors is ready. Those that declined to run or have finished are left out."""
    not_ready: list[Reason] = []
    degraded: list[Reason] = []
    of_members: dict[str, dict[str, list[Reason]]] = {}
    required: dict[str, Required] = {}
    awaited = [address for address in addresses if address.is_needed_by_all]
    for address in awaited:
        if address.one_of is not None:
            of_members.setdefault(address.one_of.kind, {}).setdefault(address.one_of.about, [])
            required[address.one_of.kind] = address.one_of.required
    members = {about: reasons for kind in of_members.values() for about, reasons in kind.items()}
    for address in awaited:
        own = "" if address.one_of is None else address.one_of.about
        for trouble in address.troubles():
            about = trouble.about or own
            reason = Reason(address.name, about, trouble.kind, trouble.why)
            (members.get(about, not_ready) if trouble.blocks else degraded).append(reason)
    for kind, found in of_members.items():
        ready = sum(not reasons for reasons in found.values())
        wanted = required[kind]
        needed = 1 if wanted == "any" else len(found) if wanted == "all" else wanted
        (degraded if ready >= needed else not_ready).extend(reason for reasons in found.values() for reason in reasons)
        if needed > len(found):
            why = f"{needed} {kind} are required and {len(found)} are configured: correct {kind}.required"
            not_ready.append(Reason(kind, "", "required", why))
    return Readiness(tuple(not_ready), tuple(degraded))
