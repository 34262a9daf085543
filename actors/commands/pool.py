"""`atlas pool …`, `atlas leases`: change a running pool of database connections, and see who holds them.

A restart of the pool forgets what was changed.
"""

from __future__ import annotations

from typing import Any

import click

from runtime.cli import Seconds, call_control, complete_actor, control_options, emit, json_option, table

NAME = click.argument("name", shell_complete=complete_actor)


@click.group()
def pool() -> None:
    """Change a running pool of database connections, until its next restart (`atlas leases` shows it)."""


@pool.command()
@NAME
@click.argument("size", type=click.IntRange(1, 1000))
@control_options
@json_option
@click.pass_context
def resize(ctx: click.Context, name: str, size: int, *, as_json: bool) -> None:
    """Keep SIZE connections in pool NAME. Surplus ones go when they are given back. `pool.size` makes it last."""
    _change(ctx, as_json, name, "resize", size=size)


@pool.command()
@NAME
@control_options
@json_option
@click.pass_context
def pause(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Let pool NAME serve health checks only: holders finish, everybody else waits."""
    _change(ctx, as_json, name, "pause")


@pool.command()
@NAME
@control_options
@json_option
@click.pass_context
def resume(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Undo `atlas pool pause`."""
    _change(ctx, as_json, name, "resume")


@pool.command()
@NAME
@click.option(
    "--spread",
    type=Seconds(0),
    default=10.0,
    show_default=True,
    help="Seconds over which to replace them.",
)
@control_options
@json_option
@click.pass_context
def expire(ctx: click.Context, name: str, spread: float, *, as_json: bool) -> None:
    """Replace every connection of pool NAME, as after a change of the server's settings or of the password."""
    _change(ctx, as_json, name, "expire", spread=spread)


@pool.command()
@NAME
@click.argument("owner", required=False, shell_complete=complete_actor)
@click.option("--all", "everybody", is_flag=True, help="Everybody's leases.")
@control_options
@json_option
@click.pass_context
def revoke(ctx: click.Context, name: str, owner: str | None, *, everybody: bool, as_json: bool) -> None:
    """Take away the leases that the actor OWNER holds of pool NAME: their transactions do not commit."""
    if (owner is not None) is everybody:
        raise click.UsageError("say whose leases to take away: OWNER, or --all for everybody's")
    _change(ctx, as_json, name, "revoke", owner=owner or "", everybody=everybody)


def _change(ctx: click.Context, as_json: bool, name: str, action: str, **arguments: object) -> None:
    found: dict[str, Any] = call_control(ctx, "pool", pool=name, action=action, **arguments)

    def told() -> str:
        what = {
            "resize": f"keeps {found['size']} connections",
            "pause": "serves only the system lane",
            "resume": "serves everybody",
            "expire": "replaces its connections",
            "revoke": f"took {found['revoked']} {'lease' if found['revoked'] == 1 else 'leases'} away",
        }[action]
        return f"{name} {what}; {found['leased']} leased, {found['waiting']} waiting"

    emit(found, as_json, told)


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
    """One row for each label and lane, one column for each bucket that some wait fell into."""
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
