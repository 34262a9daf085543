"""How many files, functions and moves between files four trips pass: `python tools/trips.py [TRIP …] [--paths] [--json FILE]`.

The trips are tell → handler, lease → release, crash → restarted and purchase → key active; `tools/trip_setups.py` says where
each begins and ends, `tools/moves.py` what counts as a file, a function, a move. Each is really made, several times after a
warm-up. The figures are those of the run with the median of moves; beside them stand the least and the most moves of all runs,
which differ by a hundredth or two where answers of PostgreSQL or the node arrive sooner or in more parts, and by half in a run
that gets a connection on which its statements are still to be prepared. Tasks that do something periodically are left out.

`lease` and `purchase` start a PostgreSQL of their own, and `purchase` a node; all four together take about half a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trio.testing
from rich.console import Console
from rich.table import Table

from tools.moves import MoveCounter, Trace
from tools.trip_setups import TRIPS

ROUNDS: Final = 15
WARM_UP: Final = 5
"""Trips that are not counted: what is imported, opened or remembered for good is no part of a trip."""
PATIENCE: Final = 30.0
"""Seconds that one trip may take."""
CLOCKS: Final = 1.3
"""Seconds in which every task that does something periodically does it: the slowest, once a second."""
PAIRS: Final = 20
"""Pairs of files that `--paths` shows."""
WIDTH: Final = 120


@attrs.frozen
class Count:
    """All runs of one trip."""

    title: str
    runs: Sequence[Trace]

    @property
    def moves(self) -> list[int]:
        """Of each run."""
        return [run.moves.total() for run in self.runs]

    @property
    def median(self) -> Trace:
        """The first run with the median of moves, of two medians the lower one."""
        return self.runs[self.moves.index(statistics.median_low(self.moves))]

    def to_json(self) -> dict[str, Any]:
        """Everything that is known of the median run, and the moves of each."""
        run = self.median
        return {
            "files": len(run.files),
            "functions": len(run.functions),
            "moves": run.moves.total(),
            "awaits": run.awaits,
            "moves_of_each_run": self.moves,
            "path": [{"file": file, "functions": run.functions_of(file)} for file in run.files],
            "pairs": run.pairs(),
        }


async def count(name: str, rounds: int) -> Count:
    """Make the trip so many times. Raises trio.TooSlowError if one does not come to its end."""
    counter = MoveCounter()
    runs = []
    try:
        async with TRIPS[name](counter) as trip:
            for number in range(-WARM_UP, rounds):
                if number == 0:
                    await counter.ignore_clocks(CLOCKS)
                with trio.fail_after(PATIENCE):
                    await trip()
                runs.append(counter.trace)
                await trio.testing.wait_all_tasks_blocked()
    finally:
        counter.end()
    return Count((TRIPS[name].__doc__ or name).removesuffix("."), runs[WARM_UP:])


def show(counts: Sequence[Count], console: Console) -> None:
    """The table."""
    table = Table("trip", "files", "functions", "moves", "of them awaits", "moves of all runs")
    for each in counts:
        run, moves = each.median, each.moves
        figures = (len(run.files), len(run.functions), run.moves.total(), run.awaits)
        table.add_row(each.title, *map(str, figures), f"{min(moves)} to {max(moves)} in {len(moves)}")
    console.print(table)


def show_path(count: Count, console: Console) -> None:
    """The files in the order passed, with their functions; then where most moves are."""
    run = count.median
    lines = [f"\n{count.title}: files in the order in which they are first passed"]
    lines += [
        f"{place:3}. {file}: {', '.join(run.functions_of(file))}" for place, file in enumerate(run.files, start=1)
    ]
    lines.append(f"\n{count.title}: moves between two files, most first")
    lines += [f"{moves:4}  {one} ↔ {other}" for one, other, moves in run.pairs()[:PAIRS]]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trips", nargs="*", metavar="TRIP", help=f"of {', '.join(TRIPS)}; all of them by default")
    parser.add_argument(
        "--paths", action="store_true", help="print the files in the order passed, and where most moves are"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was counted to this file")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"counted runs of each trip (default {ROUNDS})")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.trips if name not in TRIPS]:
        parser.error(f"no such trip: {', '.join(unknown)}; there are {', '.join(TRIPS)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    counts = {name: trio.run(count, name, given.rounds) for name in given.trips or TRIPS}
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    show(list(counts.values()), console)
    if given.paths:
        for each in counts.values():
            show_path(each, console)
    if given.json is not None:
        report = {name: each.to_json() for name, each in counts.items()}
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
