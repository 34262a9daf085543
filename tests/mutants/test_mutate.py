"""The mutator makes each kind of wrong, names it for good, and puts it into what is imported already."""

from __future__ import annotations

import ast
import sys
import types

import pytest

from tests.mutants.mutate import Mutant, mutants
from tests.mutants.run import EQUIVALENT, MODULES, ROOT, SAMPLE, put_in, read_list

MUST_FIND = ROOT / "tests/db/model/must_find.txt"
SOURCE = '''
LIMIT = 3
QUERY = "SELECT a FROM t WHERE a > 1 AND b IS NULL ORDER BY a DESC"

class Purse:
    """A purse."""
    held: int = 7

    @property
    def twice(self):
        return self.held + self.held

def judge(a, b, seen):
    """Says something."""
    if not a:
        raise ValueError("no")
    seen.append(a)
    return min(a, b) if a is None or a < LIMIT else -b
'''


def found() -> list[Mutant]:
    return list(mutants("made_up", ast.parse(SOURCE)))


def test_each_kind_of_wrong_is_made_and_named() -> None:
    said = {mutant.what.partition(" SQL")[0] for mutant in found()}
    for what in (
        "self.held + self.held -> self.held - self.held",
        "not: if not a",
        "removed: raise ValueError('no')",
        "removed: seen.append(a)",
        "min(a, b) -> max(a, b)",
        "a is None -> a is not None",
        "a is None or a < LIMIT -> a is None and a < LIMIT",
        "a < LIMIT -> a <= LIMIT",
        "a < LIMIT -> a >= LIMIT",
        "-b -> +b",
    ):
        assert what in said
    in_sql = [mutant.what for mutant in found() if mutant.what.startswith("SQL")]
    for change in ("[ DESC -> ASC]", "[ > -> >= ]", "[IS NULL -> IS NOT NULL]", "[b IS NULL -> true]"):
        assert any(change in what for what in in_sql)


@pytest.mark.parametrize(
    ("what", "seen"),
    [
        ("min(a, b) -> max(a, b)", (5, 14, 3)),
        ("3 -> 4", (1, 14, 4)),
        ("self.held + self.held -> self.held - self.held", (1, 0, 3)),
    ],
)
def test_a_wrong_is_put_into_what_is_imported_already(monkeypatch: pytest.MonkeyPatch, what: str, seen: object) -> None:
    module, user = types.ModuleType("made_up"), types.ModuleType("made_up_user")
    module.__file__ = "made_up.py"
    monkeypatch.setitem(sys.modules, "made_up", module)
    monkeypatch.setitem(sys.modules, "made_up_user", user)
    exec(compile(SOURCE, "made_up.py", "exec"), vars(module))  # noqa: S102  # the text above
    vars(user)["LIMIT"] = module.LIMIT
    judge, purse = module.judge, module.Purse()
    (mutant,) = [mutant for mutant in found() if mutant.what == what]
    put_in(mutant)
    assert (judge(1, 5, []), purse.twice, user.LIMIT) == seen


def test_what_is_kept_names_mutants_that_are_there() -> None:
    there = {
        mutant.name
        for module in MODULES
        for mutant in mutants(module, ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()))
    }
    kept = [name for file in (SAMPLE, EQUIVALENT, MUST_FIND) for name in read_list(file)]
    assert [name for name in kept if name not in there] == [], (
        "`make proofs-money` finds them anew; see tests/mutants/run.py"
    )
