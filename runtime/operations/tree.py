"""The running tree: its supervisors, made from the declared groups, and which supervisor has which child."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from runtime.child import Child, ChildSpec
from runtime.config.config import Config
from runtime.config.groups import GroupPlan, longest_kills
from runtime.config.tree import ChildPlan
from runtime.core.spawned import SpawnedActors
from runtime.events import Event
from runtime.supervision.spawning import OUTLIVING, SpawnSupervisor
from runtime.supervision.supervisor import ChildInfo, ChildState, Supervisor

SHOWN_CHILDREN = 100
"""How many of the actors that an actor has spawned are listed in status."""


class Tree:
    """The root, the groups below it, and the way from a name to its supervisor."""

    def __init__(
        self,
        config: Config,
        make: Callable[[ChildPlan], Child],
        emit: Callable[[Event], None],
        spawned: SpawnedActors | None = None,
    ) -> None:
        """`make` makes the child of a plan; it is called for every plan, in no particular order. `spawned` are the actors that
        other actors have spawned.
        """
        self.spawned = SpawnedActors() if spawned is None else spawned
        self.groups: dict[str, Supervisor] = {}
        self._config = config
        self._make = make
        self._emit = emit
        self._group_plans = {group.name: group for group in config.groups}
        self._above: dict[str, str | None] = {plan.name: plan.group for plan in config.children}
        self._above |= {group.name: group.parent for group in config.groups}
        self._kills = longest_kills(config.groups, [(plan.group, plan.table.kill_grace) for plan in config.children])
        root = config.supervisor
        self.root = Supervisor(
            root.name,
            [self._spec(plan) for plan in config.below(None)],
            root.strategy,
            root.intensity,
            root.period,
            root.auto_shutdown,
            shutdown_budget=root.shutdown_budget,
            emit=emit,
        )

    def _spec(self, plan: ChildPlan | GroupPlan) -> ChildSpec:
        if isinstance(plan, ChildPlan):
            return plan.spec(lambda: self._make(plan))
        return plan.spec(lambda: self._group(plan), longest_kill=self._kills[plan.name])

    def _group(self, plan: GroupPlan) -> Supervisor:
        table = plan.table
        self.groups[plan.name] = supervisor = Supervisor(
            plan.name,
            [self._spec(below) for below in self._config.below(plan.name)],
            table.strategy,
            table.intensity,
            table.period,
            table.auto_shutdown,
            emit=self._emit,
        )
        return supervisor

    def group_plan(self, name: str) -> GroupPlan:
        """The declaration of a group."""
        return self._group_plans[name]

    def group_of(self, name: str) -> str | None:
        """The group that an actor or a group belongs to; None directly below the root, and for unknown names."""
        return self._above.get(name)

    def supervisor_of(self, name: str) -> Supervisor | SpawnSupervisor:
        """The supervisor of an actor or a group; the root for an unknown name."""
        child = self.spawned.get(name)
        if child is not None and isinstance(child.supervisor, SpawnSupervisor):
            return child.supervisor
        above = self.group_of(name)
        return self.root if above is None else self.groups[above]

    def supervisors(self) -> Mapping[str, Supervisor]:
        """All of them by name, the root first."""
        return {self.root.name: self.root, **self.groups}

    def label_of(self, name: str) -> str:
        """What metrics call it: its name, or `name.*` of the declared actor that it descends from."""
        child = self.spawned.get(name)
        return name if child is None else child.metric_label

    def children(self, limit: int | None = SHOWN_CHILDREN) -> Iterator[ChildInfo]:
        """All listed actors and groups, each group right before its members; a group that is down stands alone.

        Behind each actor stand those that it has spawned, up to `limit` of them: the ones first that do not serve.
        """
        return self._children(self.root, limit)

    def _children(self, supervisor: Supervisor, limit: int | None) -> Iterator[ChildInfo]:
        for child in supervisor.which_children():
            if child.name == OUTLIVING:
                continue
            yield child
            if child.name in self.groups:
                yield from self._children(self.groups[child.name], limit)
            else:
                yield from self._spawned_by(child.name, limit)

    def _spawned_by(self, parent: str, limit: int | None) -> Iterator[ChildInfo]:
        found = [info for child in self.spawned.children_of(parent) if (info := self.find(child.name)) is not None]
        if limit is not None and len(found) > limit:
            found = sorted(found, key=lambda child: child.state is ChildState.RUNNING)[:limit]
        for info in found:
            yield info
            yield from self._spawned_by(info.name, limit)

    def find(self, name: str) -> ChildInfo | None:
        """A child that is listed."""
        return self.supervisor_of(name).find_child(name)

    def members(self, group: str) -> list[str]:
        """The actors in a group and in the groups inside it."""
        return [plan.name for plan in self._config.children if group in self._enclosing_groups(plan.name)]

    def depth(self, name: str) -> int:
        """How many groups are around it, and actors above it that it descends from."""
        child = self.spawned.get(name)
        return len(self._enclosing_groups(name)) if child is None else 1 + self.depth(child.parent)

    def _enclosing_groups(self, name: str) -> list[str]:
        found: list[str] = []
        above = self.group_of(name)
        while above is not None:
            found.append(above)
            above = self.group_of(above)
        return found

    def unstopped(self) -> list[str]:
        """The names of all children that do not stop, each once."""
        reports = [report for supervisor in self.supervisors().values() for report in supervisor.unstopped]
        return list(dict.fromkeys(report.name.rpartition("/")[2] for report in reports))
