"""What was counted stands between the markers, and nothing else of the page changes."""

from __future__ import annotations

from typing import Any

import pytest

from tools.trips_page import PAGE, TITLES, write

TRIP: dict[str, Any] = {
    "files": 2,
    "moves": 3,
    "functions": 5,
    "path": [{"file": "runtime/a.py", "functions": []}, {"file": "db/b.py", "functions": []}],
}
FIGURES = "<!-- figures -->\nold\n<!-- /figures -->\n"


def test_figures_and_paths_are_written_between_their_markers() -> None:
    written = write(f"Before.\n{FIGURES}Between.\n<!-- tell -->\nold\n<!-- /tell -->\nAfter.\n", {"tell": TRIP})
    assert "old" not in written
    assert "| tell → handler | 7 | 2 | 15 | 3 | 5 |\n" in written
    assert "| crash → restarted | 34 | not counted | 206 | not counted | not counted |" in written
    assert "Between.\n<!-- tell -->\n`runtime/a.py` → `db/b.py`\n<!-- /tell -->\nAfter.\n" in written


def test_writing_the_same_again_changes_nothing() -> None:
    once = write(f"{FIGURES}<!-- tell -->\nold\n<!-- /tell -->\n", {"tell": TRIP})
    assert write(once, {"tell": TRIP}) == once


def test_a_page_without_a_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- tell -->"):
        write(FIGURES, {"tell": TRIP})


def test_the_page_has_a_place_for_each_trip() -> None:
    assert write(PAGE.read_text(), dict.fromkeys(TITLES, TRIP)).count("`runtime/a.py` → `db/b.py`") == len(TITLES)
