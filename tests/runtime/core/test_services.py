from __future__ import annotations

import pytest

from runtime.core.address import Address
from runtime.core.services import Registry, Services
from runtime.errors import UnknownActor
from tests.runtime.messages import Scribe


def address(name: str) -> Address:
    return Address(name, Scribe, Services())


# S-103
def test_a_name_leads_to_its_address_and_to_a_ref_that_stays_the_same() -> None:
    registry = Registry()
    ledger = address("ledger")
    registry.add(ledger)
    assert registry.find("ledger") is ledger
    assert registry.lookup("ledger") is registry.lookup("ledger") is ledger.ref


# S-104
def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    registry = Registry()
    registry.add(address("ledger"))
    with pytest.raises(UnknownActor, match=r"no actor is named 'leger'; did you mean 'ledger'\?") as caught:
        registry.lookup("leger")
    assert (caught.value.name, caught.value.nearest) == ("leger", "ledger")
    with pytest.raises(UnknownActor) as caught:
        registry.find("something else")
    assert caught.value.nearest is None


def test_a_name_belongs_to_one_address_until_it_is_removed() -> None:
    registry = Registry()
    first, second = address("a"), address("a")
    registry.add(first)
    registry.add(first)
    with pytest.raises(ValueError, match=r"an actor named 'a' exists already \(its incarnation is 0\)"):
        registry.add(second)
    assert registry.find("a") is first
    registry.remove("a")
    registry.remove("a")
    registry.add(second)
    assert registry.find("a") is second


def test_it_can_be_counted_searched_and_changed_while_one_walks_through_it() -> None:
    registry = Registry()
    for name in ("a", "b"):
        registry.add(address(name))
    assert len(registry) == 2
    assert "a" in registry
    assert "c" not in registry
    for each in registry:
        registry.remove(each.name)
    assert list(registry) == []
