"""The declared tree: one plan per child, in start order, and the child specs made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from runtime.actor import Actor
from runtime.child import Child, ChildSpec
from runtime.config.nearest import did_you_mean
from runtime.config.sections import ActorTable, SupervisorSettings
from runtime.config.source import Source
from runtime.supervision.errors import SpecError
from runtime.supervision_limits import check_combination, check_limit


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
    """Names of children, with `for_each` tables spelt out."""

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
            needs=self.needs,
        )


def resolve_needs(source: Source, plans: Sequence[ChildPlan], tables: Mapping[str, ActorTable]) -> list[ChildPlan]:
    """Spell out `for_each` names and put every child behind what it needs, otherwise in the order of the file.

    `tables` are all actor tables, also those that gave no plan because something is wrong with them or because their
    section is empty. Unknown names and circles are noted in `source`.
    """
    members: dict[str, list[str]] = {name: [] for name in tables}
    for plan in plans:
        members.setdefault(plan.declared, []).append(plan.name)
        members.setdefault(plan.name, [plan.name])
    templates = tuple(f"{name}." for name, table in tables.items() if table.for_each is not None)
    for name, table in tables.items():
        for index, need in enumerate(table.needs):
            has_plans = any(need.startswith(template) and members[template[:-1]] for template in templates)
            if need not in members and (has_plans or not need.startswith(templates)):
                message = f'there is no actor "{need}"{did_you_mean(need, members)}'
                source.blame(("actor", name, "needs", index), message)
    return _in_start_order(source, [attrs.evolve(plan, needs=_spelt_out(plan, members)) for plan in plans])


def _spelt_out(plan: ChildPlan, members: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for need in plan.table.needs for name in members.get(need, ())))


def _in_start_order(source: Source, plans: Sequence[ChildPlan]) -> list[ChildPlan]:
    by_name = {plan.name: plan for plan in plans}
    ordered: dict[str, ChildPlan] = {}
    reported: set[str] = set()

    def visit(plan: ChildPlan, path: tuple[str, ...]) -> None:
        if plan.name in path:
            circle = (*path[path.index(plan.name) :], plan.name)
            if not reported.intersection(circle):
                message = f"these need each other in a circle: {' → '.join(circle)}; leave one of these needs out"
                source.blame(("actor", plan.declared, "needs"), message)
            reported.update(circle)
            return
        if plan.name in ordered:
            return
        for need in plan.needs:
            if need in by_name:
                visit(by_name[need], (*path, plan.name))
        ordered.setdefault(plan.name, plan)

    for plan in plans:
        visit(plan, ())
    return list(ordered.values())


def check_against_supervisor(source: Source, plans: Sequence[ChildPlan], root: SupervisorSettings) -> None:
    """Note in `source` every child that contradicts its supervisor: limits that could never be reached, times too long."""
    checked: set[str] = set()
    for plan in plans:
        if plan.declared in checked:
            continue
        checked.add(plan.declared)
        spec = plan.spec(never_started)
        try:
            check_combination(spec, root.strategy, root.auto_shutdown)
            check_limit(spec, root.intensity, root.period)
        except SpecError as error:
            source.blame(("actor", plan.declared), str(error))
        if spec.shutdown + spec.kill_grace > root.shutdown_budget:
            source.blame(
                ("actor", plan.declared, "shutdown"),
                f"shutdown + kill_grace is {spec.shutdown + spec.kill_grace:g} s, more than the "
                f"{root.shutdown_budget:g} s that the whole tree has ([supervisor] shutdown_budget)",
            )


def never_started() -> Child:
    """The `start` of a spec that is only looked at."""
    raise AssertionError("a spec that is only checked starts nothing")
