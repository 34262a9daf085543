"""Comparing what belongs on a node with what it lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

import attrs
import pytest

from actors.keys.diff import diff_keys, duplicate_uuids, key_spec, why_implausible
from db.keys.reconcile import ExpectedKey, ReconcilePass
from vpn.digest import digest
from vpn.protocol import FLOW_VISION, InboundFacts, KeySpec, KeyState, NodeKey, NodeState

END = datetime(2027, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
LOOK = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)
PLACE = ReconcilePass(number=1, position="", looked_at=LOOK, removals=0, boot_id=None, flow="", inbounds=("vless",))

Status = Literal["pending", "active", "failed", "removing"]


def expected(name: str = "k1", *, generation: int = 3, status: Status = "active", is_noted: bool = True) -> ExpectedKey:
    return ExpectedKey(7, name, uuid4(), generation, status, END, is_noted)


def listed(spec: KeySpec, state: KeyState = KeyState.SERVING) -> dict[str, NodeKey]:
    return {spec.key_id: NodeKey(spec, state)}


def test_a_key_that_is_there_as_wanted_is_no_drift_whatever_its_generation() -> None:
    key = expected()
    for generation in (1, 3, 9):
        spec = attrs.evolve(key_spec(key, PLACE), generation=generation)
        diff = diff_keys([key], listed(spec), PLACE)
        assert (diff.missing, diff.node_is_newer, diff.unconfirmed) == ([], [], [])


def test_ends_are_compared_in_the_whole_seconds_that_nodes_keep() -> None:
    key = expected()
    spec = attrs.evolve(key_spec(key, PLACE), expires_at=END.replace(microsecond=0) + timedelta(seconds=1))
    assert diff_keys([key], listed(spec), PLACE).node_is_newer == []


def test_a_key_that_is_not_listed_is_missing() -> None:
    key = expected()
    assert diff_keys([key], {}, PLACE).missing == [key]


@pytest.mark.parametrize("listing", ["without it", "with what it was before"])
@pytest.mark.parametrize(("seconds", "is_missing"), [(-1, True), (0, False), (1, False)])
def test_a_list_says_nothing_of_a_key_that_the_node_confirmed_after_the_look_began(
    listing: str, seconds: int, is_missing: bool
) -> None:
    key = attrs.evolve(expected(), noted_at=LOOK + timedelta(seconds=seconds))
    older = attrs.evolve(key_spec(key, PLACE), generation=2, uuid=UUID(int=5))
    diff = diff_keys([key], {} if listing == "without it" else listed(older), PLACE)
    assert (diff.missing, diff.undecided) == (([key], []) if is_missing else ([], [key]))
    seen_without = attrs.evolve(key, is_missing=True)
    assert diff_keys([seen_without], {}, PLACE).missing == [seen_without], (
        "it is known to be lost, whenever it was noted"
    )


@pytest.mark.parametrize(
    "change", [{"uuid": UUID(int=5)}, {"flow": FLOW_VISION}, {"inbounds": ("other",)}, {"expires_at": None}]
)
@pytest.mark.parametrize(("generation", "is_older"), [(2, True), (3, False), (9, False)])
def test_a_key_that_differs_is_put_again_and_overtaken_if_the_node_would_refuse_that(
    change: dict[str, object], generation: int, is_older: bool
) -> None:
    key = expected()
    spec = attrs.evolve(key_spec(key, PLACE), generation=generation, **change)  # type: ignore[arg-type]  # one field each
    diff = diff_keys([key], listed(spec), PLACE)
    assert diff.missing == ([key] if is_older else [])
    assert diff.node_is_newer == ([] if is_older else [(key, generation)])


@pytest.mark.parametrize(("status", "is_noted"), [("pending", False), ("failed", True), ("removing", True)])
def test_a_key_that_this_node_has_not_confirmed_is_left_to_its_own_worker(status: Status, is_noted: bool) -> None:
    key = expected(status=status, is_noted=is_noted)
    diff = diff_keys([key], {}, PLACE)
    assert (diff.missing, diff.node_is_newer, diff.unconfirmed, diff.unwanted) == ([], [], [], [])


def test_a_key_that_waits_for_another_node_is_compared_where_it_was_confirmed() -> None:
    key = expected(status="pending")
    assert diff_keys([key], {}, PLACE).missing == [key]
    spec = attrs.evolve(key_spec(key, PLACE), uuid=UUID(int=5))
    assert diff_keys([key], listed(spec), PLACE).node_is_newer == [(key, 3)]


@pytest.mark.parametrize("status", ["failed", "removing"])
def test_a_key_that_is_wanted_no_more_is_unwanted_wherever_it_is_listed(status: Status) -> None:
    key = expected(status=status)
    assert diff_keys([key], listed(key_spec(key, PLACE)), PLACE).unwanted == ["k1"]


def test_a_key_that_was_missing_and_is_there_again_is_noted() -> None:
    key = attrs.evolve(expected(), is_missing=True)
    assert diff_keys([key], listed(key_spec(key, PLACE)), PLACE).unconfirmed == [key]


def test_a_key_found_on_its_node_is_noted_once_the_node_has_confirmed_it() -> None:
    key = expected(is_noted=False)
    spec = key_spec(key, PLACE)
    assert diff_keys([key], listed(spec, KeyState.PENDING), PLACE).unconfirmed == []
    assert diff_keys([key], listed(spec), PLACE).unconfirmed == [key]


def test_keys_whose_uuids_xray_cannot_tell_apart_are_duplicates() -> None:
    uuid = uuid4()
    twin = UUID(bytes=uuid.bytes[:6] + b"\xaa\xbb" + uuid.bytes[8:])
    keys = {
        **listed(KeySpec("one", uuid)),
        **listed(KeySpec("two", uuid4())),
        **listed(KeySpec("three", twin)),
    }
    assert duplicate_uuids(keys) == [("one", "three")]


def state(count: int, keys_digest: str, sequence: int = 5, boot: str = "b") -> NodeState:
    return NodeState(
        agent_id="a",
        boot_id=boot,
        agent_version="",
        xray_version="",
        ready=True,
        why="",
        count=count,
        serving=count,
        expired=0,
        pending=0,
        digest=keys_digest,
        last_generation=1,
        sequence=sequence,
        capabilities=frozenset(),
        inbounds=(InboundFacts("vless", "h", 1, "tcp", "none"),),
        now=END,
    )


SPECS = [KeySpec(f"k{number}", uuid4()) for number in range(3)]
KEYS = {spec.key_id: NodeKey(spec, KeyState.SERVING) for spec in SPECS}
HONEST = state(3, digest(SPECS))


def test_a_list_that_is_what_the_node_says_is_plausible() -> None:
    assert why_implausible(KEYS, HONEST, HONEST) == ""


def test_a_shorter_list_than_the_node_says_is_a_lie() -> None:
    assert "lists 2 keys" in why_implausible({name: KEYS[name] for name in ("k0", "k1")}, HONEST, HONEST)
    assert "lists 0 keys" in why_implausible({}, HONEST, HONEST)


def test_a_list_of_the_right_length_with_another_digest_is_a_lie() -> None:
    keys = {**KEYS, **listed(KeySpec("k2", uuid4()))}
    assert "digest" in why_implausible(keys, HONEST, HONEST)


def test_a_node_that_changed_while_it_was_listed_may_differ_by_its_changes() -> None:
    later = state(4, "f" * 64, sequence=6)
    assert why_implausible(KEYS, HONEST, later) == ""
    assert why_implausible({"k0": KEYS["k0"]}, HONEST, later) != ""


def test_a_node_that_was_started_anew_while_it_was_listed_is_not_judged() -> None:
    assert why_implausible({}, HONEST, state(3, digest(SPECS), boot="c")) == ""
