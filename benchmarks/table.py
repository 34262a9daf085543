"""Results as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

WIDTH = 190


def show(groups: Mapping[str, Sequence[Result]], console: Console) -> None:
    """One table for each group; then one line with every missed target, or the news that there is none."""
    for group, results in groups.items():
        table = Table(title=group, title_justify="left", show_edge=False)
        for heading in ("what", "value", "compared with", "its value", "ratio", "target", ""):
            is_number = heading in ("value", "its value", "ratio")
            table.add_column(heading, justify="right" if is_number else "left", no_wrap=heading != "what")
        for result in results:
            table.add_row(*_cells(result))
        console.print(table)
        console.print()
    missed = [(group, result) for group, results in groups.items() for result in results if result.met is False]
    judged = sum(result.met is not None for results in groups.values() for result in results)
    if missed:
        console.print(f"{len(missed)} of {judged} targets MISSED:", style="bold")
        for group, result in missed:
            console.print(f"  {group}: {_sentence(result)}", soft_wrap=True, highlight=False)
    else:
        console.print(f"all {judged} targets met", style="bold")


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        _amount(result.value, result.unit),
        result.yardstick,
        "" if result.yardstick_value is None else _amount(result.yardstick_value, result.unit),
        "" if result.ratio is None else f"{result.ratio:.2f} {result.ratio_means}",
        result.target_text(),
        {True: "met", False: "[bold red]MISSED[/]", None: ""}[result.met],
    )


def _sentence(result: Result) -> str:
    found = _amount(result.value, result.unit)
    if result.ratio is not None:
        found = f"{found} is {result.ratio:.2f} {result.ratio_means} of {result.yardstick}"
        found = found.replace("× faster of", "× faster than")
    return f"{result.name}: {found}; target {result.target_text()}"


def _amount(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 1000 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f} {unit}"
