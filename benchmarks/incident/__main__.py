"""`python -m benchmarks.incident`: the night of the freeze, once with the old habits and once with ATLAS, side by side."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click
import trio
from rich.console import Console
from rich.table import Table

from benchmarks.incident import old, ours
from benchmarks.incident.night import SUBSCRIPTIONS, Seen
from benchmarks.incident.pictures import draw_beats, draw_waits
from tests.e2e.stack import REPOSITORY
from tests.postgres_cluster import Cluster, temporary_root

PICTURES: Final = REPOSITORY / "docs" / "pictures"


@click.command()
@click.option("--subscriptions", default=SUBSCRIPTIONS, show_default=True, help="How many there are.")
@click.option("--pictures", is_flag=True, help="Draw them anew in docs/pictures.")
def main(subscriptions: int, pictures: bool) -> None:
    """Replay the freeze. Exit code 0: the old service froze and ATLAS kept what it promises; 1: one of both did not happen."""
    then, now = trio.run(_both, subscriptions)
    show(Console(), then, now)
    if pictures:
        (PICTURES / "incident-waits.svg").write_text(draw_waits(then, now))
        (PICTURES / "incident-beats.svg").write_text(draw_beats(then, now))
    wrong = differences(then, now)
    for line in wrong:
        click.echo(f"WRONG  {line}")
    sys.exit(1 if wrong else 0)


async def _both(subscriptions: int) -> tuple[Seen, Seen]:
    """Both at the same time, each with a database and a node of its own."""
    seen: dict[str, Seen] = {}

    async def spend(name: str, night: Callable[[int], Awaitable[Seen]]) -> None:
        seen[name] = await night(subscriptions)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(spend, "then", _old)
        nursery.start_soon(spend, "now", _ours)
    return seen["then"], seen["now"]


async def _old(subscriptions: int) -> Seen:
    cluster = Cluster(temporary_root())
    try:
        cluster.initialise()
        cluster.start()
        return await old.spend_the_night(cluster.dsn(), subscriptions)
    finally:
        cluster.stop()


async def _ours(subscriptions: int) -> Seen:
    with tempfile.TemporaryDirectory(prefix="atlas-incident-") as home:
        return await ours.spend_the_night(Path(home), subscriptions)


def differences(then: Seen, now: Seen) -> list[str]:
    """What did not come out as the page says."""
    expected = {
        "the old service's loop stands still": then.oldest("event_loop") > 5,
        "customers of the old service wait in vain": then.in_vain > 0,
        "the old service cuts paying customers": then.cut > 0,
        "ATLAS's customers have what they paid for": now.bought == now.paid,
        "ATLAS cuts nobody": now.cut == 0,
        "ATLAS has all of its connections": now.lost_connections == 0,
        "nobody waits long for one of ATLAS's connections": now.worst_wait <= 5.0,
        "ATLAS's watchdog names the place": any("lock_twice.py:" in note for note in now.notes),
        "ATLAS serves again": any("served again" in note for note in now.notes),
    }
    return [f"not so: {what}" for what, is_so in expected.items() if not is_so]


def show(console: Console, then: Seen, now: Seen) -> None:
    """Both, beside each other."""
    table = Table(title="The night of the freeze", show_lines=True)
    for column in ("", "the old habits", "ATLAS"):
        table.add_column(column, overflow="fold")
    rows = [
        ("customers who paid, and had it at the end", *(f"{seen.bought} of {seen.paid}" for seen in (then, now))),
        ("longest wait for a connection", f"{then.worst_wait:.1f} s", f"at most {now.worst_wait:g} s"),
        ("who wanted one and had none at the end", str(then.in_vain), str(now.in_vain)),
        ("connections lost for good", str(then.lost_connections), str(now.lost_connections)),
        ("paying customers cut by comparing", str(then.cut), str(now.cut)),
        ("keys put back because a list had failed", str(then.for_nothing), str(now.for_nothing)),
        ("oldest beat of the loop", f"{then.oldest('event_loop'):.0f} s", f"{now.oldest('event_loop'):.0f} s"),
        ("what was done about it", "\n".join(then.notes), "\n".join(now.notes)),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
