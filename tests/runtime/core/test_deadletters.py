from __future__ import annotations

from runtime.core.deadletters import DeadLetter, DeadLetters


def kept(ring: int = 3) -> DeadLetters:
    """Dead letters on a clock that counts."""
    times = iter(range(1, 100))
    return DeadLetters(ring=ring, clock=lambda: float(next(times)))


# S-111
def test_a_dead_letter_says_when_who_what_type_and_why() -> None:
    letters = kept()
    letters.record("ledger", "Post", "the actor is dead")
    assert letters.recent() == [DeadLetter(1.0, "ledger", "Post", "the actor is dead")]


# S-111
def test_the_ring_keeps_the_last_ones_and_the_counts_all() -> None:
    letters = kept(ring=2)
    for actor, message in (("a", "X"), ("b", "X"), ("a", "X"), ("a", "Y")):
        letters.record(actor, message, "why")
    assert [(letter.actor, letter.message) for letter in letters.recent()] == [("a", "X"), ("a", "Y")]
    assert letters.total == 4
    assert letters.counts() == {("a", "X"): 2, ("b", "X"): 1, ("a", "Y"): 1}


def test_as_many_as_asked_for_are_given_oldest_first() -> None:
    letters = kept(ring=10)
    for number in range(5):
        letters.record(f"a{number}", "X", "why")
    assert [letter.actor for letter in letters.recent(2)] == ["a3", "a4"]
    assert letters.recent(0) == letters.recent(-1) == []
    assert len(letters.recent(99)) == 5


def test_the_counts_that_were_given_do_not_change_afterwards() -> None:
    letters = kept()
    letters.record("a", "X", "why")
    counts = letters.counts()
    letters.record("a", "X", "why")
    assert counts == {("a", "X"): 1}


def test_the_ring_holds_1000_unless_told_otherwise() -> None:
    letters = DeadLetters()
    for _ in range(1001):
        letters.record("a", "X", "why")
    assert (len(letters.recent()), letters.total) == (1000, 1001)
