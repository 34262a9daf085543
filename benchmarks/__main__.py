"""`python -m benchmarks [GROUP …] [--quick] [--json FILE]`: measure against the targets of the design."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console

from benchmarks import registry, table
from benchmarks.result import Result

BUSY = ": others were at work, so trust the ratios more than the times"
COMPARED = ("trio", "asyncpg", "pykka")


@click.command()
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@click.option(
    "--quick", is_flag=True, help="One short round of everything: proves that it runs, the figures mean little."
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here, too."
)
def main(groups: tuple[str, ...], quick: bool, json_file: Path | None) -> None:
    """Measure the named groups (default: all), each against its yardsticks in the same run.

    A missed target is shown as MISSED and is no error: the exit code is 1 only if a group could not be measured.
    """
    found = registry.find()
    if unknown := [group for group in groups if group not in found.measured]:
        raise click.UsageError(f"no such group: {', '.join(unknown)}; there are {', '.join(found.measured)}")
    began, load = time.time(), os.getloadavg()[0]
    cpus = len(os.sched_getaffinity(0))
    results: dict[str, list[Result]] = {}
    failed: dict[str, str] = {}
    for group in groups or found.measured:
        click.echo(f"measuring {group} …", err=True)
        try:
            results[group] = registry.load(group)(quick)
        except Exception as error:  # noqa: BLE001  # the other groups are still worth measuring
            failed[group] = f"{type(error).__name__}: {error}"
    table.show(results, Console(width=None if sys.stdout.isatty() else table.WIDTH))
    click.echo(f"on {cpus} CPUs with a load of {load:.2f} at the begin" + (BUSY if load > cpus / 2 else ""))
    for group, why in failed.items():
        click.echo(f"error: {group} could not be measured: {why}", err=True)
    if found.alone and not groups:
        click.echo(f"also, each run alone: {', '.join(f'python -m benchmarks.{name}' for name in found.alone)}")
    if json_file is not None:
        machine = {"cpus": cpus, "load": load}
        found_all = report(results, failed, began, quick=quick) | machine
        json_file.write_text(json.dumps(found_all, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


def report(results: dict[str, list[Result]], failed: dict[str, str], began: float, *, quick: bool) -> dict[str, object]:
    """What `--json` writes, but for the machine."""
    return {
        "began_at": began,
        "seconds": time.time() - began,
        "quick": quick,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in COMPARED},
        "groups": {group: [result.to_json() for result in lines] for group, lines in results.items()},
        "failed": failed,
    }


if __name__ == "__main__":
    main()
