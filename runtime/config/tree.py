"""The declared tree: one plan per child, in start order, and the child specs made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from runtime.child import Child, ChildSpec
from runtime.config.config_file import RawConfig
from runtime.config.groups import GroupPlan, GroupTree
from runtime.config.runtime_sections import SupervisorSettings
from runtime.config.tree_tables import ActorTable
from runtime.core.actor import Actor
from runtime.supervision.errors import SpecError
from runtime.supervision.spec_checks import check_combination, check_limit
from runtime.wording import did_you_mean


@attrs.frozen
class ChildPlan:
    """One child as the configuration declares it; checked, so that `make_actor` succeeds."""

    name: str
    declared: str
    """The name of its table; differs from `name` for the children of a `for_each` table."""
    table: ActorTable
    actor: type[Actor]
    arguments: Mapping[str, object]
    needs: tuple[str, ...] = ()
    """Names of children and groups, with `for_each` tables spelt out."""
    waits_for: tuple[str, ...] = ()
    """Siblings that must be up before it starts: what it needs, or the groups that contain that."""

    @property
    def group(self) -> str | None:
        """The group that it belongs to; None below the root."""
        return self.table.group

    def make_actor(self) -> Actor:
        """A fresh instance with the declared start arguments."""
        return self.actor(**self.arguments)

    def spec(self, start: Callable[[], Child]) -> ChildSpec:
        """The child spec, given what makes the child's address."""
        return ChildSpec(
            name=self.name,
            start=start,
            restart=self.table.restart,
            significant=self.table.significant,
            shutdown=self.table.shutdown,
            kill_grace=self.table.kill_grace,
            start_timeout=self.table.start_timeout,
            backoff=self.table.backoff,
            give_up=self.table.give_up,
            needs=self.waits_for,
        )


@attrs.frozen
class DeclaredTree:
    """All children in start order, each group before what is in it."""

    actors: tuple[ChildPlan, ...] = ()
    groups: tuple[GroupPlan, ...] = ()


def resolve_needs(
    source: RawConfig,
    plans: Sequence[ChildPlan],
    tables: Mapping[str, ActorTable],
    groups: Mapping[str, GroupPlan],
) -> DeclaredTree:
    """Spell out `for_each` names and put every child behind what it needs, otherwise in the order of the file.

    `tables` are all actor tables, also those that gave no plan because something is wrong with them or because their
    section is empty. Unknown names, needs of what contains the needing, and circles are noted in `source`.
    """
    members: dict[str, list[str]] = {name: [] for name in tables} | {name: [name] for name in groups}
    for plan in plans:
        if plan.name in groups:
            place = source.place(("group", plan.name))
            source.blame(("actor", plan.declared), f'there is already a group "{plan.name}", from {place}')
        members.setdefault(plan.declared, []).append(plan.name)
        members.setdefault(plan.name, [plan.name])
    templates = tuple(f"{name}." for name, table in tables.items() if table.for_each is not None)
    needs = {("actor", name): table.needs for name, table in tables.items()}
    needs |= {("group", name): group.table.needs for name, group in groups.items()}
    for (kind, name), wanted in needs.items():
        for index, need in enumerate(wanted):
            has_plans = any(need.startswith(template) and members[template[:-1]] for template in templates)
            if need not in members and (has_plans or not need.startswith(templates)):
                message = f'there is no actor "{need}"{did_you_mean(need, members)}'
                source.blame((kind, name, "needs", index), message)
    for name, table in tables.items():
        if table.group is not None and table.group not in groups:
            hint = did_you_mean(table.group, groups) or "; declare it as [group.<name>]"
            source.blame(("actor", name, "group"), f'there is no group "{table.group}"{hint}')
    plans = [attrs.evolve(plan, needs=_spelt_out(plan.table.needs, members)) for plan in plans]
    return _in_start_order(source, plans, groups, members)


def _spelt_out(needs: Sequence[str], members: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for need in needs for name in members.get(need, ())))


def _in_start_order(
    source: RawConfig,
    plans: Sequence[ChildPlan],
    groups: Mapping[str, GroupPlan],
    members: Mapping[str, Sequence[str]],
) -> DeclaredTree:
    by_name = {plan.name: plan for plan in plans}
    forest = GroupTree(source, groups, {name: plan.table.group for name, plan in by_name.items()})
    wanted = [(("actor", plan.declared), plan.name, plan.needs) for plan in plans]
    wanted += [(("group", name), name, _spelt_out(group.table.needs, members)) for name, group in groups.items()]
    blamed: set[tuple[str, str]] = set()
    for key, name, needs in wanted:
        for need in needs:
            known = need in by_name or need in groups
            if known and not forest.add_need(name, need) and key not in blamed:
                blamed.add(key)
                source.blame((*key, "needs"), f'"{need}" and {name} contain each other: neither could start first')

    def declared_at(name: str) -> tuple[str, ...]:
        return ("group", name) if name in groups else ("actor", by_name[name].declared, "needs")

    order = forest.in_start_order(declared_at)
    return DeclaredTree(
        tuple(attrs.evolve(by_name[name], waits_for=forest.waits_for(name)) for name in order if name in by_name),
        tuple(
            attrs.evolve(groups[name], waits_for=forest.waits_for(name))
            for name in order
            if name in groups and name not in by_name
        ),
    )


def check_against_supervisor(source: RawConfig, tree: DeclaredTree, root: SupervisorSettings) -> None:
    """Note in `source` every child that contradicts its supervisor: limits that could never be reached, times too long."""
    groups = {group.name: group for group in tree.groups}
    first_of_each = {plan.declared: plan for plan in reversed(tree.actors)}.values()
    plans: list[tuple[tuple[str, str], ChildPlan | GroupPlan, str | None]] = [
        (("actor", plan.declared), plan, plan.group) for plan in reversed(first_of_each)
    ]
    plans += [(("group", group.name), group, group.parent) for group in tree.groups]
    for key, plan, above in plans:
        settings = groups[above].table if above in groups else root
        try:
            spec = plan.spec(never_started)
        except ValueError as error:
            source.blame(key, str(error))
            continue
        try:
            check_combination(spec, settings.strategy, settings.auto_shutdown)
            check_limit(spec, settings.intensity, settings.period)
        except SpecError as error:
            source.blame(key, str(error))
        if spec.kind == "worker" and spec.shutdown + spec.kill_grace > root.shutdown_budget:
            source.blame(
                (*key, "shutdown"),
                f"shutdown + kill_grace is {spec.shutdown + spec.kill_grace:g} s, more than the "
                f"{root.shutdown_budget:g} s that the whole tree has ([supervisor] shutdown_budget)",
            )


def never_started() -> Child:
    """The `start` of a spec that is only looked at."""
    raise AssertionError("a spec that is only checked starts nothing")
