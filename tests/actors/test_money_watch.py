"""A violation is an alarm at once, work in progress is none."""

from __future__ import annotations

from actors.money_watch import VIOLATIONS, MoneyWatch, in_trouble
from db.verify import Invariant


def look(at_rest: bool, *subjects: str, more: int = 0) -> Invariant:
    return Invariant("money_test", at_rest, len(subjects) + more, tuple((subject, "is wrong") for subject in subjects))


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


def test_what_stays_is_found_among_any_number_of_others_that_come_and_go() -> None:
    watch = MoneyWatch(patience=900.0)
    troubles = []
    for number in range(4):
        passing = [f"key:{1000 * number + other}" for other in range(500)]
        troubles.append(watch.judge(look(True, *passing, "key:9"), number * 600.0).trouble)
    assert troubles[:2] == ["", ""]
    assert "501 violations, such as key:9: is wrong for 1200 s" in troubles[2]
    assert "for 1800 s" in troubles[3]
    assert watch.judge(look(True), 2400.0).trouble == ""
    assert watch.judge(look(True, "key:9"), 3000.0).trouble == "", "whoever comes back begins anew"


def test_two_looks_that_follow_at_once_are_no_alarm_about_what_holds_at_rest() -> None:
    watch = MoneyWatch(patience=60.0)
    assert watch.judge(look(True, "key:1"), 0.0).trouble == ""
    assert watch.judge(look(True, "key:1"), 5.0).trouble == ""
    assert watch.judge(look(True, "key:1"), 605.0).trouble != ""


def test_more_than_can_be_told_apart_is_trouble_when_it_lasts() -> None:
    watch = MoneyWatch(patience=60.0)
    assert watch.judge(look(True, "key:1", more=9), 0.0).trouble == ""
    assert "more than can be told apart" in watch.judge(look(True, "key:2", more=9), 600.0).trouble
