"""`atlas check`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from runtime.cli.options import config_option, json_option, load_startable
from runtime.cli.output import emit, table
from runtime.config.errors import ConfigErrors
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from runtime.config.config import Config
    from runtime.config.groups import GroupPlan
    from runtime.config.tree import ChildPlan


@click.command
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, *, as_json: bool) -> None:
    """Check the configuration and print the tree, the start order, the longest stop and the time to give up.

    Imports the actors that are declared and connects to nothing. It refuses whatever `atlas run` refuses before that connects
    anywhere, in the same words. All errors are printed at once, with their lines; the exit code is 78 then. With --json,
    stdout has them as {"ok": false, "errors": [{"file", "line", "variable", "key", "message"}]}.
    """
    try:
        report = examine(load_startable(ctx))
    except ConfigError as error:
        if as_json:
            emit({"ok": False, "errors": _as_data(error)}, as_json, str)
        raise
    emit(report, as_json, lambda: render(report))


def _as_data(error: ConfigError) -> list[dict[str, object]]:
    if not isinstance(error, ConfigErrors):
        return [{"file": None, "line": None, "variable": None, "key": "", "message": str(error)}]
    return [
        {
            "file": None if problem.place.file is None else str(problem.place.file),
            "line": problem.place.line,
            "variable": problem.place.variable,
            "key": problem.key,
            "message": problem.message,
        }
        for problem in error.problems
    ]


def examine(config: Config) -> dict[str, object]:
    """Everything that can be known of a tree before it runs."""
    from runtime.child import ChildSpec  # keeps `atlas --help` fast
    from runtime.config.groups import GroupPlan  # as above
    from runtime.config.tree import never_started  # as above
    from runtime.control.socket import socket_path  # as above
    from runtime.supervision.spec_checks import SpecTree, time_to_give_up, worst_case_shutdown  # as above

    root = config.supervisor
    groups = {group.name: group for group in config.groups}

    def place(plan: ChildPlan | GroupPlan) -> SpecTree:
        below = () if not isinstance(plan, GroupPlan) else tuple(place(each) for each in config.below(plan.name))
        return SpecTree(plan.spec(never_started), below)

    def limits(plan: ChildPlan | GroupPlan, above: str | None) -> dict[str, object]:
        spec = plan.spec(never_started)
        settings = groups[above].table if above is not None else root
        seconds = time_to_give_up(settings.intensity, settings.period, spec.backoff)
        return {
            "restart": spec.restart.value,
            "waits_for": list(spec.needs),
            "give_up": spec.give_up.value,
            "time_to_give_up": None if spec.give_up == "never" or math.isinf(seconds) else seconds,
            "worst_case_stop": worst_case_shutdown(place(plan)),
        }

    def described_group(group: GroupPlan) -> dict[str, object]:
        return {
            "name": group.name,
            "group": group.parent,
            "strategy": group.table.strategy.value,
            "intensity": group.table.intensity,
            "period": group.table.period,
            "children": [plan.name for plan in config.below(group.name)],
            **limits(group, group.parent),
        }

    def described_actor(plan: ChildPlan) -> dict[str, object]:
        return {
            "name": plan.name,
            "group": plan.group,
            "actor": f"{plan.actor.__module__}:{plan.actor.__qualname__}",
            "needs": list(plan.needs),
            "needed_by": [other.name for other in config.children if plan.name in other.needs],
            **limits(plan, plan.group),
            "mailbox": {
                "capacity": plan.table.mailbox.capacity,
                "overflow": plan.table.mailbox.overflow.value,
            },
            "paused": plan.table.paused,
        }

    plans = tuple(place(plan) for plan in config.below(None))
    tree = SpecTree(ChildSpec(root.name, never_started, shutdown=root.shutdown_budget, kind="supervisor"), plans)
    return {
        "ok": True,
        "config": None if config.path is None else str(config.path),
        "name": root.name,
        "strategy": root.strategy.value,
        "intensity": root.intensity,
        "period": root.period,
        "shutdown_budget": root.shutdown_budget,
        "worst_case_stop": worst_case_shutdown(tree),
        "worst_case_stop_unlimited": sum(worst_case_shutdown(plan) for plan in plans),
        "socket": str(socket_path(config)),
        "operators": [{"name": name, "role": one.role.value} for name, one in config.operators.items()],
        "warnings": list(config.warnings),
        "start_order": [plan.name for plan in config.children],
        "groups": [described_group(group) for group in config.groups],
        "children": [described_actor(plan) for plan in config.children],
    }


def render(report: dict[str, Any]) -> str:
    """The report for people."""
    rows: list[tuple[object, ...]] = []
    numbers = {name: number for number, name in enumerate(report["start_order"], start=1)}
    children = {child["name"]: child for child in [*report["children"], *report["groups"]]}

    def add(name: str, depth: int) -> None:
        child = children[name]
        what = child.get("actor") or (
            f"group, {child['strategy']}, more than {child['intensity']} restarts in {child['period']:g} s"
        )
        gives_up = "never"
        if child["time_to_give_up"] is not None:
            gives_up = f"{child['give_up']} after {child['time_to_give_up']:.1f} s"
        rows.append(
            (
                numbers.get(name, ""),
                "  " * depth + name,
                what,
                child["restart"],
                ", ".join(child.get("needs") or child["waits_for"]) or "-",
                f"{child['worst_case_stop']:g} s",
                gives_up,
                "paused" if child.get("paused") else "",
            )
        )
        for below in child.get("children", ()):
            add(below, depth + 1)

    top = [*report["start_order"], *(group["name"] for group in report["groups"])]
    for name in dict.fromkeys(_outermost(name, children) for name in top):
        add(name, 0)
    lines = [
        f"{report['config']}: {report['name']}, {report['strategy']}, gives up after more than {report['intensity']} "
        f"restarts in {report['period']:g} s",
        "",
        table(("start", "child", "actor", "restart", "needs", "stop within", "gives up", ""), rows) or "no children",
        "",
        f"longest stop: {report['worst_case_stop']:g} s (children ask for {report['worst_case_stop_unlimited']:g} s in all, "
        f"shutdown_budget is {report['shutdown_budget']:g} s)",
        f"control socket: {report['socket']}",
        f"operators: {_operators(report['operators'])}",
        *(f"warning: {warning}" for warning in report["warnings"]),
        "ok",
    ]
    return "\n".join(lines)


def _outermost(name: str, children: dict[str, Any]) -> str:
    while (group := children[name]["group"]) is not None:
        name = group
    return name


def _operators(declared: list[dict[str, str]]) -> str:
    if declared:
        return ", ".join(f"{one['name']} ({one['role']})" for one in declared)
    return "none declared, so whoever may open the control socket or the database is the owner, by the unix user's name"
