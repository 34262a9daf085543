"""`atlas check`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from runtime.cli.options import config_option, json_option, load_config
from runtime.cli.output import emit, table

if TYPE_CHECKING:
    from runtime.config.config import Config


@click.command
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, *, as_json: bool) -> None:
    """Check the configuration and print the tree, the start order, the longest stop and the time to give up.

    Imports the actors that are declared and connects to nothing. All errors are printed at once, with their lines; the
    exit code is 78 then.
    """
    report = examine(load_config(ctx))
    emit(report, as_json, lambda: render(report))


def examine(config: Config) -> dict[str, object]:
    """Everything that can be known of a tree before it runs."""
    import os  # as above

    from runtime.child import ChildSpec  # keeps `atlas --help` fast
    from runtime.config.tree import never_started  # as above
    from runtime.control.socket_path import socket_path  # as above
    from runtime.supervision_limits import Plan, time_to_give_up, worst_case_shutdown  # as above

    root = config.supervisor
    specs = [plan.spec(never_started) for plan in config.children]
    plans = tuple(Plan(spec) for spec in specs)
    asked = sum(worst_case_shutdown(plan) for plan in plans)
    tree = Plan(ChildSpec(root.name, never_started, shutdown=root.shutdown_budget, kind="supervisor"), plans)
    children = []
    for plan, spec, place in zip(config.children, specs, plans, strict=True):
        seconds = time_to_give_up(root.intensity, root.period, spec.backoff)
        children.append(
            {
                "name": plan.name,
                "actor": f"{plan.actor.__module__}:{plan.actor.__qualname__}",
                "restart": spec.restart.value,
                "needs": list(spec.needs),
                "needed_by": [other.name for other in specs if plan.name in other.needs],
                "give_up": spec.give_up.value,
                "time_to_give_up": None if spec.give_up == "never" or math.isinf(seconds) else seconds,
                "worst_case_stop": worst_case_shutdown(place),
                "mailbox": {
                    "capacity": plan.table.mailbox.capacity,
                    "overflow": plan.table.mailbox.overflow.value,
                },
                "paused": plan.table.paused,
            }
        )
    return {
        "config": None if config.path is None else str(config.path),
        "name": root.name,
        "strategy": root.strategy.value,
        "intensity": root.intensity,
        "period": root.period,
        "shutdown_budget": root.shutdown_budget,
        "worst_case_stop": worst_case_shutdown(tree),
        "worst_case_stop_unlimited": asked,
        "socket": str(socket_path(config, os.environ)),
        "warnings": list(config.warnings),
        "start_order": [spec.name for spec in specs],
        "children": children,
    }


def render(report: dict[str, object]) -> str:
    """The report for people."""
    children = report["children"]
    assert isinstance(children, list)
    rows = [
        (
            number,
            child["name"],
            child["actor"],
            child["restart"],
            ", ".join(child["needs"]) or "-",
            f"{child['worst_case_stop']:g} s",
            "never"
            if child["time_to_give_up"] is None
            else f"{child['give_up']} after {child['time_to_give_up']:.1f} s",
            "paused" if child["paused"] else "",
        )
        for number, child in enumerate(children, start=1)
    ]
    warnings = report["warnings"]
    assert isinstance(warnings, list)
    lines = [
        f"{report['config']}: {report['name']}, {report['strategy']}, gives up after more than {report['intensity']} "
        f"restarts in {report['period']:g} s",
        "",
        table(("start", "child", "actor", "restart", "needs", "stop within", "gives up", ""), rows) or "no children",
        "",
        f"longest stop: {report['worst_case_stop']:g} s (children ask for {report['worst_case_stop_unlimited']:g} s in all, "
        f"shutdown_budget is {report['shutdown_budget']:g} s)",
        f"control socket: {report['socket']}",
        *(f"warning: {warning}" for warning in warnings),
        "ok",
    ]
    return "\n".join(lines)
