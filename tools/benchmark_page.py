"""Writes docs/reference/benchmarks.md from what `make bench` kept: `python tools/benchmark_page.py FOUND.json [MORE.json …]`.

Every line of the page is a line of those files, misses first; nothing is typed in by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference" / "benchmarks.md"
HEAD: Final = """# Measured

What `make bench` found, with the targets of the design. Ratios are of medians in one run, in which all sides take turns; times
depend on the machine. A part of it: `make bench BENCH="leases --json found.json"`. Written by
`python tools/benchmark_page.py found.json`.
"""


def page(reports: Sequence[dict[str, Any]]) -> str:
    """The page. Raises ValueError for a report of quick runs, whose figures mean nothing, or one with failed groups."""
    parts = [HEAD]
    lines = [(group, line) for report in reports for group, found in report["groups"].items() for line in found]
    for report in reports:
        if report["quick"] or report["failed"]:
            raise ValueError(f"not a whole run: quick={report['quick']}, failed={report['failed']}")
        day = datetime.fromtimestamp(report["began_at"], UTC).strftime("%Y-%m-%d")
        versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        parts.append(
            f"{', '.join(report['groups'])}: {day}, {report['cpus']} CPUs, load {report['load']:.1f} at the begin, "
            f"{report['seconds']:.0f} s, Python {report['python']}, {versions}.\n"
        )
    judged = [(group, line) for group, line in lines if line["met"] is not None]
    missed = [(group, line) for group, line in judged if not line["met"]]
    parts.append(f"## Missed\n\n{len(missed)} of {len(judged)} targets.\n")
    parts += [
        f"- {group}: {line['name']}: {_value(line)}{_beside(line)}; target {line['target']}" for group, line in missed
    ]
    for group in dict.fromkeys(group for group, _ in lines):
        parts.append(f"\n## {group}\n\n| what | value | beside | ratio | target | |\n|---|---|---|---|---|---|")
        parts += [_row(line) for name, line in lines if name == group]
    return "\n".join(parts) + "\n"


def _row(line: dict[str, Any]) -> str:
    verdict = {None: "", True: "met", False: "**missed**"}[line["met"]]
    beside = f"{line['yardstick']}: {_amount(line['yardstick_value'], line['unit'])}" if line["yardstick"] else ""
    ratio = "" if line["ratio"] is None else f"{line['ratio']:.3g} {line['ratio_means']}"
    return f"| {line['name']} | {_value(line)} | {beside} | {ratio} | {line['target']} | {verdict} |"


def _value(line: dict[str, Any]) -> str:
    return _amount(line["value"], line["unit"])


def _beside(line: dict[str, Any]) -> str:
    if line["ratio"] is None:
        return ""
    joined = "than" if line["ratio_means"].endswith("faster") else "of"
    return f", {line['ratio']:.3g} {line['ratio_means']} {joined} {line['yardstick']}"


def _amount(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def main() -> None:
    """Write the page."""
    reports = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    if not reports:
        raise SystemExit(__doc__)
    PAGE.write_text(page(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
