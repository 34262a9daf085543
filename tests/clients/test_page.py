"""What can be said of docs/clients.md without being root: it was measured with the programs that are installed, row by row."""

from __future__ import annotations

from tests.clients.table import ROWS, measured_with, on_the_page


def test_the_page_was_measured_with_the_programs_that_are_installed() -> None:
    page = on_the_page()
    assert measured_with() in page, "write it anew: python -m tests.clients.table"
    for row in ROWS:
        assert page.count(f"| {row.client} | `{row.form}` |") == 1
