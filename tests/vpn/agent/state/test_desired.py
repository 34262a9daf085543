"""The rules of the wanted set: whatever the order in which requests arrive, the newest decision wins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpn.agent.state.desired import Conflict, DesiredSet, Entry, Forgotten, UuidTaken
from vpn.agent.state.records import change_from_json, change_to_json, decode_line, encode_line
from vpn.digest import digest
from vpn.protocol import FLOW_VISION, KeySpec

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")


def spec(name: str = "a", generation: int = 1, uuid: UUID = ID, expires_at: datetime | None = NOON) -> KeySpec:
    """A key."""
    return KeySpec(name, uuid, generation=generation, expires_at=expires_at)


def put(desired: DesiredSet, wanted: KeySpec) -> Entry | None:
    """Plan and apply."""
    change = desired.decide_put(wanted, 0.0)
    if change is not None:
        desired.apply(change)
    return change


def remove(desired: DesiredSet, name: str, generation: int) -> Entry | None:
    """Plan and apply."""
    change = desired.decide_remove(name, generation, 0.0)
    if change is not None:
        desired.apply(change)
    return change


def test_a_put_repeated_changes_nothing() -> None:
    desired = DesiredSet()
    assert put(desired, spec()) is not None
    before = (desired.sequence, desired.digest)
    assert put(desired, spec()) is None
    assert (desired.sequence, desired.digest) == before


def test_a_newer_generation_replaces_everything() -> None:
    desired = DesiredSet()
    put(desired, spec())
    newer = spec(generation=2, uuid=uuid4(), expires_at=NOON - timedelta(days=1))
    put(desired, newer)
    assert desired.wanted("a") == newer
    assert desired.owner(ID) is None
    assert desired.last_generation == 2


def test_an_older_put_is_a_conflict_that_names_the_known_generation() -> None:
    desired = DesiredSet()
    put(desired, spec(generation=5))
    with pytest.raises(Conflict) as caught:
        put(desired, spec(generation=4))
    assert caught.value.generation == 5
    assert desired.wanted("a") == spec(generation=5)


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_late_put_after_the_removal_is_a_conflict(generation: int) -> None:
    desired = DesiredSet()
    put(desired, spec(generation=2))
    remove(desired, "a", 3)
    with pytest.raises(Conflict) as caught:
        put(desired, spec(generation=generation))
    assert caught.value.generation == 3
    assert desired.wanted("a") is None
    assert put(desired, spec(generation=4)) is not None


def test_a_late_put_of_a_key_that_was_never_there_is_a_conflict_after_its_removal() -> None:
    desired = DesiredSet()
    assert remove(desired, "a", 7) is not None
    with pytest.raises(Conflict):
        put(desired, spec(generation=7))


def test_removing_an_older_generation_than_is_wanted_is_a_conflict() -> None:
    desired = DesiredSet()
    put(desired, spec(generation=5))
    with pytest.raises(Conflict) as caught:
        remove(desired, "a", 4)
    assert caught.value.generation == 5
    assert desired.wanted("a") is not None


def test_a_removal_repeated_or_older_than_another_changes_nothing() -> None:
    desired = DesiredSet()
    put(desired, spec())
    remove(desired, "a", 3)
    assert remove(desired, "a", 3) is None
    assert remove(desired, "a", 2) is None
    assert remove(desired, "a", 4) is not None


@pytest.mark.parametrize(
    "other",
    [attrs.evolve(spec(), uuid=uuid4()), attrs.evolve(spec(), flow=FLOW_VISION), attrs.evolve(spec(), inbounds=("x",))],
    ids=["uuid", "flow", "inbounds"],
)
def test_one_generation_never_means_two_different_keys(other: KeySpec) -> None:
    desired = DesiredSet()
    put(desired, spec())
    with pytest.raises(Conflict):
        put(desired, other)
    assert desired.wanted("a") == spec()


def test_of_one_generation_only_a_later_end_is_taken() -> None:
    desired = DesiredSet()
    put(desired, spec())
    assert put(desired, spec(expires_at=NOON - timedelta(days=1))) is None
    assert put(desired, spec(expires_at=NOON + timedelta(days=1))) is not None
    assert desired.wanted("a") == spec(expires_at=NOON + timedelta(days=1))
    assert put(desired, spec(expires_at=None)) is not None
    assert put(desired, spec(expires_at=NOON + timedelta(days=9))) is None
    assert desired.wanted("a") == spec(expires_at=None)


@pytest.mark.parametrize("route", [b"\0\0", b"\x41\xd2", b"\xff\xff"])
def test_a_uuid_that_differs_only_where_xray_does_not_look_is_refused(route: bytes) -> None:
    desired = DesiredSet()
    put(desired, spec())
    with pytest.raises(UuidTaken) as caught:
        put(desired, spec("b", uuid=UUID(bytes=ID.bytes[:6] + route + ID.bytes[8:])))
    assert caught.value.key_id == "a"
    assert str(ID) not in str(caught.value)
    assert desired.wanted("b") is None


@pytest.mark.parametrize("free", [lambda d: remove(d, "a", 1), lambda d: d.apply(Forgotten("a", 9))])
def test_a_uuid_is_free_again_once_its_key_is_gone(free: Callable[[DesiredSet], object]) -> None:
    desired = DesiredSet()
    put(desired, spec())
    free(desired)
    assert put(desired, spec("b")) is not None


def test_a_forgotten_key_refuses_nothing_later() -> None:
    desired = DesiredSet()
    put(desired, spec(generation=5))
    desired.apply(Forgotten("a", 2))
    assert desired.wanted("a") is None
    assert put(desired, spec(generation=1)) is not None


def test_pages_follow_each_other_in_order_without_gaps() -> None:
    desired = DesiredSet()
    names = [f"k{number:02}" for number in range(25)]
    for name in reversed(names):
        put(desired, spec(name, uuid=uuid4()))
    seen: list[str] = []
    while page := desired.page(seen[-1] if seen else "", 10):
        seen += [found.key_id for found in page]
    assert seen == names
    assert desired.page("k24", 10) == []
    assert [found.key_id for found in desired.page("k0", 1)] == ["k00"]


requests = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 4),
        st.sampled_from([None, NOON, NOON + timedelta(days=1)]),
    ),
    max_size=12,
)


def perform(desired: DesiredSet, request: tuple[str, str, int, datetime | None], log: list[bytes]) -> None:
    """Make the request, whatever comes of it; each generation of a key has one UUID, as the caller chooses it."""
    kind, name, generation, expires_at = request
    wanted = spec(name, generation, UUID(int=(ord(name) << 96) + generation), expires_at)
    try:
        change = desired.decide_put(wanted, 0.0) if kind == "put" else desired.decide_remove(name, generation, 0.0)
    except Conflict:
        return
    if change is not None:
        log.append(encode_line(change_to_json(change)))
        desired.apply(change)


@settings(deadline=None)  # a busy machine is not a failure
@given(requests, st.data())
def test_repeating_any_requests_later_never_brings_back_what_was_decided_against(
    wanted: list[tuple[str, str, int, datetime | None]], data: st.DataObject
) -> None:
    desired = DesiredSet()
    for request in wanted:
        perform(desired, request, [])
    before = desired.digest
    for request in data.draw(st.lists(st.sampled_from(wanted), max_size=5)) if wanted else []:
        perform(desired, request, [])
    assert desired.digest == before


@settings(deadline=None)  # a busy machine is not a failure
@given(requests)
def test_replaying_the_log_gives_the_same_set(wanted: list[tuple[str, str, int, datetime | None]]) -> None:
    desired, log = DesiredSet(), list[bytes]()
    for request in wanted:
        perform(desired, request, log)
    replayed = DesiredSet()
    for line in log:
        replayed.apply(change_from_json(decode_line(line[:-1])))
    assert replayed.entries() == desired.entries()
    assert (replayed.digest, replayed.sequence) == (desired.digest, desired.sequence)
    assert replayed.digest == digest(replayed.specs())
    assert len(replayed) == sum(1 for _ in replayed.specs())
