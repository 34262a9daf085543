"""`atlas leases`: who holds the connections, who waits for them, and how long waits have been."""

from __future__ import annotations

from typing import Any

import click

from runtime.cli.options import call_control, complete_actor, control_options, json_option
from runtime.cli.output import emit, table


@click.command
@click.argument("pool", required=False, shell_complete=complete_actor)
@click.option("--stacks", is_flag=True, help="Show where each holder's task stands.")
@control_options
@json_option
@click.pass_context
def leases(ctx: click.Context, pool: str | None, *, stacks: bool, as_json: bool) -> None:
    """Show who holds database connections and who waits for one, of POOL or of every pool."""
    found = call_control(ctx, "leases", pool=pool)
    emit(found, as_json, lambda: render(found, stacks=stacks))


def render(found: dict[str, Any], *, stacks: bool = False) -> str:
    """The document for people."""
    return "\n\n".join(_pool(each, stacks) for each in found["pools"]) or "no pool runs here"


def _pool(pool: dict[str, Any], stacks: bool) -> str:
    from runtime.wording import duration  # keeps `atlas --help` fast

    if pool["state"] == "not running":
        return f"{pool['pool']} does not run at this moment (`atlas status`)"
    lines = [
        f"{pool['pool']} {pool['state']} for {duration(pool['since_seconds'])}, {pool['bridge'] or 'no'} bridge, "
        f"{pool['size']} connections: {pool['leased']} leased, {pool['idle']} idle, {pool['quarantined']} in quarantine, "
        f"{pool['missing']} missing; {len(pool['waiting'])} waiting"
    ]
    if pool["paused"]:
        lines.append(f"  paused: only the system lane is served (`atlas pool resume {pool['pool']}`)")
    if pool["cause"]:
        lines.append(f"  {pool['cause']}")
    if pool["slow"]:
        lines.append(
            f"  overloaded for {duration(pool['slow_seconds'])}: requests that would come too late are refused"
        )
    if refused := ", ".join(f"{count} {why}" for why, count in pool["refused"].items() if count):
        lines.append(f"  refused so far: {refused}")
    holders = [
        (
            held["label"],
            held["lane"],
            held["owner"],
            held["site"],
            duration(held["held_seconds"]),
            duration(held["limit_seconds"]),
            held["backend_pid"],
        )
        for held in pool["holders"]
    ]
    waiting = [
        (
            waiter["label"],
            waiter["lane"],
            waiter["owner"],
            waiter["site"],
            duration(waiter["waited_seconds"]),
            duration(max(0.0, waiter["left_seconds"])),
        )
        for waiter in pool["waiting"]
    ]
    _section(lines, table(("held by", "lane", "owner", "taken at", "for", "limit", "backend"), holders))
    if stacks:
        lines += [f"  {held['label']!r} stands at {held['stack']}" for held in pool["holders"]]
    _section(lines, table(("waiting", "lane", "owner", "asked at", "for", "left"), waiting))
    _section(lines, _waits(pool) if pool["monitored"] else "waits are not monitored (pool.monitor is off)")
    return "\n".join(lines)


def _section(lines: list[str], text: str) -> None:
    if text:
        lines += ["", *(f"  {line}" for line in text.splitlines())]


def _waits(pool: dict[str, Any]) -> str:
    """One row for each label and lane, one column for each bucket that anybody's wait fell into."""
    waits = sorted(pool["waits"], key=lambda row: -row["count"])
    holds = {row["label"]: row["mean_seconds"] for row in pool["holds"]}
    if not waits:
        return ""
    bounds = [bucket["le"] for bucket in waits[0]["buckets"]]
    used = [n for n in range(len(bounds)) if any(row["buckets"][n]["count"] for row in waits)]
    headers = ["waited for", "lane", "leases", "mean hold", *(_bound(bounds, n) for n in used)]
    rows = [
        [
            row["label"],
            row["lane"],
            row["count"],
            f"{holds.get(row['label'], 0.0) * 1000:.2f} ms",
            *(row["buckets"][n]["count"] or "" for n in used),
        ]
        for row in waits
    ]
    return table(headers, rows)


def _bound(bounds: list[float | None], n: int) -> str:
    bound = bounds[n]
    if bound is None:
        return f"> {bounds[n - 1]:g} s"
    return f"≤ {bound * 1000:g} ms" if bound < 1 else f"≤ {bound:g} s"
