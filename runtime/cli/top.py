"""`atlas top`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from runtime.cli.options import Seconds, call_control, control_options
from runtime.cli.output import say, table
from runtime.cli.show import HEADERS, heading, row_of

if TYPE_CHECKING:
    from rich.console import RenderableType

ORDER: Final = ("wrong", "late", "good", "", "quiet")
"""What stands on top: what hurts, what works, what rests."""
_STYLES: Final = {"wrong": "bold red", "late": "yellow", "good": "green", "quiet": "dim", "strong": "bold"}


@click.command
@click.option("--every", type=Seconds(0.1, 3600.0), default=1.0, show_default=True, help="Seconds between two looks.")
@control_options
@click.pass_context
def top(ctx: click.Context, every: float) -> None:
    """Watch the running system: what needs a human, then the actors, the worst first. Ctrl-C ends it.

    Where stdout is no terminal it prints one table and ends. A system that goes away is waited for.
    """
    if not sys.stdout.isatty():
        found = call_control(ctx, "status")
        rows = [row_of(child) for child in worst_first(found["children"])]
        say("\n".join([*heading(found), "", table(HEADERS, rows, notes=True)]))
        return
    from rich.console import Console  # keeps `atlas --help` fast
    from rich.live import Live  # as above

    call_control(ctx, "status")  # a wrong socket or role is an error, not a screen
    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        try:
            while True:
                live.update(_look(ctx, console.size.height), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            return


def _look(ctx: click.Context, height: int) -> RenderableType:
    from rich.text import Text  # as above

    from runtime.control.protocol import ControlError  # as above

    try:
        found = call_control(ctx, "status")
    except ControlError as error:
        return Text(safe(str(error)), style="bold red")
    return screen(found, height)


def screen(found: dict[str, Any], height: int) -> RenderableType:
    """One screen: as much of what needs a human as half of it holds, and the rows that fit below, the worst first."""
    from rich.console import Group  # as above
    from rich.table import Table  # as above

    from runtime.wording import duration, moment  # as above

    wrong = found["attention"]
    state = "all is well" if not wrong else f"{len(wrong)} need you" if len(wrong) > 1 else "one needs you"
    beats = ", ".join(
        f"{name} {'absent' if found['beats'][key] is None else duration(found['beats'][key])}"
        for name, key in (("loop", "event_loop"), ("workers", "worker"), ("health check", "healthcheck"))
    )
    lines: list[RenderableType] = [
        _line(f"{found['name']} {found['state']}, {state}", "bold red" if wrong else "bold green"),
        _line(f"{moment(time.time())}, up {duration(found['uptime'])}, pid {found['pid']}; beats: {beats}", "dim"),
    ]
    shown = wrong[: max(1, height // 2 - 4)]
    lines += [
        _line(f"  {one['name']} {one['word']} for {duration(one['seconds'])}: {one['why']}", "red") for one in shown
    ]
    if len(wrong) > len(shown):
        lines.append(_line(f"  and {len(wrong) - len(shown)} more: `atlas status`", "red"))
    grid = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    for number, header in enumerate(HEADERS):
        last = number == len(HEADERS) - 1
        grid.add_column(header, no_wrap=True, overflow="ellipsis", ratio=1 if last else None)
    room = max(0, height - len(lines) - 2)
    children = worst_first(found["children"])
    for child in children[:room]:
        cells = row_of(child)
        grid.add_row(*(_cell(cell) for cell in cells))
    lines.append(grid)
    if len(children) > room:
        lines.append(_line(f"{len(children) - room} more that are well or no worse", "dim"))
    return Group(*lines)


def _cell(cell: object) -> RenderableType:
    from rich.text import Text  # as above

    style = getattr(cell, "style", None)
    return Text(safe(str(getattr(cell, "text", cell))), style=_STYLES.get(str(style), ""))


def _line(text: str, style: str) -> RenderableType:
    from rich.text import Text  # as above

    return Text(safe(text), style=style, no_wrap=True, overflow="ellipsis")


def safe(text: str) -> str:
    """The text with nothing in it that a terminal would obey."""
    return "".join(character if character.isprintable() else "·" for character in text)


def worst_first(children: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The children, those that are wrong first; among equals in the order of the tree. Names stand without their indent."""

    def rank(child: dict[str, Any]) -> int:
        return ORDER.index(str(getattr(row_of(child)[1], "style", "")))

    return [child | {"depth_in_tree": 0} for child in sorted(children, key=rank)]
