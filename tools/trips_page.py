"""Writes what trips pass into docs/architecture.md: `python tools/trips.py --json FOUND.json`, then
`python tools/trips_page.py FOUND.json`.

Between the markers `<!-- figures -->` and `<!-- /figures -->` stands the table, between those of a NAME the files of the trip
of that name in the order in which they are first passed. All other text of the page is left alone. A trip that was not counted
keeps its files, and its row of the table says so.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parent.parent / "docs" / "architecture.md"
TITLES: Final = {
    "tell": "tell → handler",
    "lease": "lease → release",
    "crash": "crash → restarted",
    "purchase": "purchase → key active",
}
BEFORE: Final = {"tell": (7, 15), "lease": (10, 46), "crash": (34, 206), "purchase": (65, 1150)}
"""Files and moves of each trip before the rooms had packages, counted by the same tool."""
WIDTH: Final = 128


def write(page: str, counted: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with what was counted. Raises ValueError if a marker is missing."""
    page = _replace(page, "figures", _figures(counted))
    for name, trip in counted.items():
        page = _replace(page, name, _path([step["file"] for step in trip["path"]]))
    return page


def _figures(counted: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| trip | files before | files | moves before | moves | functions |", "|---|---|---|---|---|---|"]
    for name, title in TITLES.items():
        files, moves = BEFORE[name]
        trip = counted.get(name, dict.fromkeys(("files", "moves", "functions"), "not counted"))
        lines.append(f"| {title} | {files} | {trip['files']} | {moves} | {trip['moves']} | {trip['functions']} |")
    return "\n".join(lines)


def _path(files: list[str]) -> str:
    return textwrap.fill(
        " → ".join(f"`{file}`" for file in files), WIDTH, break_long_words=False, break_on_hyphens=False
    )


def _replace(page: str, name: str, text: str) -> str:
    marked = re.compile(rf"(<!-- {name} -->\n)(?:.*?\n)?(<!-- /{name} -->)", re.DOTALL)
    written, times = marked.subn(lambda found: f"{found[1]}{text}\n{found[2]}", page)
    if times != 1:
        raise ValueError(f"the page needs <!-- {name} --> and <!-- /{name} --> once; they are there {times} times")
    return written


def main() -> None:
    """Write the page."""
    counted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    PAGE.write_text(write(PAGE.read_text(encoding="utf-8"), counted), encoding="utf-8")


if __name__ == "__main__":
    main()
