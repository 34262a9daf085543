"""A violation is an alarm at once, work in progress is none."""

from __future__ import annotations

from actors.money_watch import VIOLATIONS, MoneyWatch, in_trouble
from db.verify import Invariant


def look(at_rest: bool, *subjects: str) -> Invariant:
    return Invariant("money_test", at_rest, len(subjects), tuple((subject, "is wrong") for subject in subjects))


def test_a_view_that_must_hold_at_every_commit_is_in_trouble_at_once_and_says_what() -> None:
    watch = MoneyWatch()
    assert in_trouble([watch.judge(look(False))]) == []
    found = watch.judge(look(False, "order:1", "order:2"))
    assert "2 violations, such as order:1: is wrong" in found.trouble
    assert "atlas verify" in found.trouble
    assert VIOLATIONS.labels("money_test").value == 2
    assert watch.judge(look(False)).trouble == ""


def test_a_view_that_holds_at_rest_is_in_trouble_when_the_same_subject_stays() -> None:
    watch = MoneyWatch()
    assert watch.judge(look(True, "key:1", "key:2")).trouble == ""
    assert watch.judge(look(True, "key:3")).trouble == "", "others are being worked on now"
    assert "key:3" in watch.judge(look(True, "key:3", "key:4")).trouble
    assert watch.judge(look(True)).trouble == ""
