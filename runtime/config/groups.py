"""`[group.<name>]`: supervisors below the root, who belongs to which, and what a need across their borders means.

A group starts and stops as one child of its supervisor. So if an actor needs one that lives elsewhere, what has to wait is the
child that contains the former, for the sibling that contains the latter, below the supervisor that they have in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import attrs

from runtime.child import Child, ChildSpec
from runtime.config.config_file import RawConfig
from runtime.config.convert import convert
from runtime.config.errors import Invalid
from runtime.config.section_reader import is_name, is_table
from runtime.config.tree_tables import GroupTable
from runtime.wording import did_you_mean

CHILDREN_SHARE = 0.5
"""Seconds by which a group that was cancelled outlasts the slowest of its children, whose report it has to pass on."""

T = TypeVar("T")


@attrs.frozen
class GroupPlan:
    """One group as the configuration declares it."""

    name: str
    table: GroupTable
    waits_for: tuple[str, ...] = ()
    """Siblings that must be up before it starts: its own needs, and those of its members."""

    @property
    def parent(self) -> str | None:
        """The group that it belongs to; None below the root."""
        return self.table.parent

    def spec(self, start: Callable[[], Child], *, longest_kill: float = 0.0) -> ChildSpec:
        """The child spec, given what makes its supervisor and the longest `kill_grace` of its children.

        It has as long to start and to stop as its children take, each of which has limits of its own.
        """
        return ChildSpec(
            name=self.name,
            start=start,
            restart=self.table.restart,
            significant=self.table.significant,
            shutdown=math.inf,
            kill_grace=longest_kill + CHILDREN_SHARE,
            start_timeout=math.inf,
            backoff=self.table.backoff,
            give_up=self.table.give_up,
            needs=self.waits_for,
            kind="supervisor",
        )


def read_groups(source: RawConfig) -> dict[str, GroupPlan]:
    """Every group by its name, without what it waits for. Errors are noted in `source`; a wrong group is left out."""
    found: dict[str, GroupPlan] = {}
    for name in source.table(("group",)):
        path = ("group", name)
        if not is_name(source, path) or not is_table(source, path):
            continue
        try:
            found[name] = GroupPlan(name, convert(source.table(path), GroupTable))
        except Invalid as error:
            for below, message in error.found:
                source.blame((*path, *below), message)
            found[name] = GroupPlan(name, GroupTable())  # who names it as its group is not wrong as well
    for name, plan in list(found.items()):
        if plan.parent is None:
            continue
        if plan.parent not in found:
            source.blame(
                ("group", name, "parent"), f'there is no group "{plan.parent}"{did_you_mean(plan.parent, found)}'
            )
        elif name in ancestors(plan.parent, found):
            circle = " → ".join([name, *ancestors(plan.parent, found)])
            source.blame(("group", name, "parent"), f"these groups contain each other: {circle}")
        else:
            continue
        found[name] = attrs.evolve(plan, table=attrs.evolve(plan.table, parent=None))
    return found


def ancestors(name: str | None, groups: Mapping[str, GroupPlan]) -> list[str]:
    """A group and the groups around it, innermost first; ends where a name comes a second time."""
    found: list[str] = []
    while name is not None and name in groups and name not in found:
        found.append(name)
        name = groups[name].parent
    return found


class GroupTree:
    """The group of each child, and the order in which siblings start."""

    def __init__(self, source: RawConfig, groups: Mapping[str, GroupPlan], home: Mapping[str, str | None]) -> None:
        """`home` gives the group of each child that is no group, in the order of the file."""
        self._source = source
        self._groups = groups
        self._home = {name: group if group in groups else None for name, group in home.items()}
        self._waits: dict[str, dict[str, None]] = {name: {} for name in (*home, *groups)}

    def path(self, name: str) -> list[str]:
        """The groups around a child, outermost first, and the child itself."""
        around = self._groups[name].parent if name in self._groups else self._home[name]
        return [*reversed(ancestors(around, self._groups)), name]

    def add_need(self, needing: str, needed: str) -> bool:
        """Let the one's side wait for the other's; False if one contains the other."""
        if needing == needed:
            self._waits[needing][needed] = None  # the smallest circle, reported as such
            return True
        ours, theirs = self.path(needing), self.path(needed)
        for own, other in zip(ours, theirs, strict=False):
            if own != other:
                self._waits[own][other] = None
                return True
        return False

    def waits_for(self, name: str) -> tuple[str, ...]:
        """The siblings that a child waits for."""
        return tuple(self._waits[name])

    def in_start_order(self, declared_at: Callable[[str], tuple[str, ...]]) -> list[str]:
        """All children, groups included, each group right before its own; siblings behind what they wait for.

        Otherwise in the order of the file, in which a group stands where its first actor does. Circles are noted in the
        source at the key `declared_at(name)`.
        """
        siblings: dict[str | None, dict[str, None]] = {}
        for name in (*self._home, *self._groups):
            path = self.path(name)
            for above, below in zip([None, *path], path, strict=False):
                siblings.setdefault(above, {})[below] = None
        ordered: list[str] = []

        def visit(name: str, path: tuple[str, ...], done: set[str], reported: set[str]) -> list[str]:
            if name in path:
                circle = (*path[path.index(name) :], name)
                if not reported.intersection(circle):
                    hint = "; a group starts and stops as one" if any(each in self._groups for each in circle) else ""
                    message = (
                        f"these need each other in a circle: {' → '.join(circle)}; leave one of these needs out{hint}"
                    )
                    self._source.blame(declared_at(name), message)
                reported.update(circle)
                return []
            if name in done:
                return []
            found = [each for need in self._waits[name] for each in visit(need, (*path, name), done, reported)]
            if name in done:
                return found
            done.add(name)
            return [*found, name]

        def descend(above: str | None) -> None:
            done: set[str] = set()
            reported: set[str] = set()
            for sibling in siblings.get(above, ()):
                for name in visit(sibling, (), done, reported):
                    ordered.append(name)
                    if name in self._groups:
                        descend(name)

        descend(None)
        return ordered


def longest_kills(groups: Iterable[GroupPlan], kills: Sequence[tuple[str | None, float]]) -> dict[str, float]:
    """For each group the longest `kill_grace` inside it; `kills` are those of the actors, each with its group."""
    by_name = {group.name: group for group in groups}
    found = dict.fromkeys(by_name, 0.0)
    for group, seconds in kills:
        for depth, name in enumerate(ancestors(group, by_name)):
            found[name] = max(found[name], seconds + depth * CHILDREN_SHARE)
    return found
