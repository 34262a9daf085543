"""Each kept patch names a test that cites its promise, and applies; a patch that proves nothing is told as such.

That each of them turns its test red is proved by `make proofs`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.promises import run
from tests.promises.run import NoProof, Patch, applies, passing, patches, prove
from tools.check_promises import all_citations

ALL = patches()
LEAST = 25
"""Patches that there must be."""


def test_each_patch_still_applies() -> None:
    assert [wrong for wrong in map(applies, ALL) if wrong] == []


def test_each_patch_names_a_test_that_cites_its_promise() -> None:
    cited = {(f"S-{citation.number}", citation.node) for citation in all_citations(run.ROOT)}
    assert [patch for patch in ALL if (patch.promise, patch.test.partition("[")[0]) not in cited] == []
    assert len(ALL) >= LEAST


CAPACITY = """Turns red: {test}
--- a/runtime/core/mailbox.py
+++ b/runtime/core/mailbox.py
@@ -22 +22 @@
-DEFAULT_CAPACITY = {before}
+DEFAULT_CAPACITY = {after}
"""


@pytest.mark.parametrize(
    ("test", "before", "after", "said"),
    [
        ("test_the_default_lane_holds_64", "63", "65", "S-1.patch does not apply any more: make the change"),
        ("test_the_default_lane_holds_64", "64", "64 + 0", "passes although S-1.patch breaks the promise"),
        ("test_the_default_lane_holds_64", "64", "sixty_four", "was not run to its end under S-1.patch"),
        ("test_that_is_not_there", "64", "65", "was not run to its end under S-1.patch"),
    ],
)
def test_a_patch_that_proves_nothing_is_told_from_one_that_does(
    tmp_path: Path, test: str, before: str, after: str, said: str
) -> None:
    file = tmp_path / "S-1.patch"
    line = next(
        n
        for n, text in enumerate((run.ROOT / "runtime/core/mailbox.py").read_text().splitlines(), 1)
        if text == "DEFAULT_CAPACITY = 64"
    )
    text = CAPACITY.format(test=f"tests/runtime/core/test_mailbox.py::{test}", before=before, after=after)
    file.write_text(text.replace("-22 +22", f"-{line} +{line}"))
    patch = Patch.read(file)
    with pytest.raises(NoProof, match=said.replace(".", r"\.")):
        prove(patch, {patch.test})


def test_a_test_that_fails_anyway_proves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "S-1.patch"
    file.write_text("Turns red: tests/runtime/core/test_mailbox.py::test_that_is_not_there\n")
    patch = Patch.read(file)
    unpatched = passing([patch, ALL[0]])
    assert unpatched == {ALL[0].test}
    with pytest.raises(NoProof, match="does not pass unpatched"):
        prove(patch, unpatched)


def test_a_patch_without_its_header_is_told(tmp_path: Path) -> None:
    file = tmp_path / "S-1.patch"
    file.write_text("--- a/x\n+++ b/x\n")
    with pytest.raises(NoProof, match="its first line must be `Turns red: "):
        Patch.read(file)
