"""When a trouble is worth saying: when it begins, once a cooldown while it lasts, and when it ends."""

from __future__ import annotations

from actors.conditions import Alert, Condition, ConditionBegan, ConditionEnded, ConditionTracker

WELL = Condition("pool.main", "")
AWAY = Condition("pool.main", "no answer")
WORSE = Condition("pool.main", "refused")


def test_what_is_well_is_not_worth_saying() -> None:
    assert ConditionTracker(300).update([WELL], now=0) == []


def test_a_trouble_is_said_when_it_begins_and_when_it_ends_with_its_length() -> None:
    conditions = ConditionTracker(300)
    assert conditions.update([AWAY], now=10) == [Alert("pool.main", "no answer", 0)]
    assert conditions.update([WELL], now=17) == [Alert("pool.main", "", 7)]
    assert conditions.update([WELL], now=20) == []


def test_a_lasting_trouble_is_said_again_only_after_the_cooldown() -> None:
    conditions = ConditionTracker(300)
    conditions.update([AWAY], now=0)
    assert conditions.update([AWAY], now=299) == []
    assert conditions.update([WORSE], now=300) == [Alert("pool.main", "refused", 300)]
    assert conditions.update([WORSE], now=301) == []


def test_each_subject_has_a_cooldown_of_its_own() -> None:
    conditions = ConditionTracker(300)
    conditions.update([AWAY], now=0)
    other = Condition("node.local", "refused")
    assert conditions.update([AWAY, other], now=5) == [Alert("node.local", "refused", 0)]


def test_inspection_names_the_trouble_and_its_age() -> None:
    conditions = ConditionTracker(300)
    conditions.update([AWAY], now=100)
    assert conditions.inspect(now=104.2) == {"pool.main": {"trouble": "no answer", "for": 4.2}}


def test_alerts_read_as_sentences() -> None:
    began = Alert("pool.main", "no answer", 0).event("healthcheck")
    assert isinstance(began, ConditionBegan)
    assert began.line() == "pool.main is in trouble: no answer"
    assert (
        Alert("pool.main", "no answer", 301).event("healthcheck").line()
        == "pool.main is in trouble for 301 s: no answer"
    )
    ended = Alert("pool.main", "", 7).event("healthcheck")
    assert isinstance(ended, ConditionEnded)
    assert ended.line() == "pool.main is well again after 7.0 s"
