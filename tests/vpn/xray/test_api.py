"""Protocol buffers by hand: what is written is read back, and broken bytes are named as such."""

from __future__ import annotations

import contextlib
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpn.xray import api as codec
from vpn.xray.api import Malformed, XrayUser

ID = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")

Field = tuple[int, int | bytes]
field_lists = st.lists(
    st.tuples(st.integers(1, 2**29 - 1), st.one_of(st.integers(1, 2**64 - 1), st.binary(min_size=1, max_size=300)))
)


def only_message(data: bytes, *path: int) -> dict[int, int | bytes]:
    """The message at this path of field numbers."""
    for number in path:
        inner = dict(codec.fields(data))[number]
        assert isinstance(inner, bytes)
        data = inner
    return dict(codec.fields(data))


@settings(deadline=None)  # a busy machine is not a failure
@given(field_lists)
def test_fields_written_are_read_back_in_order(wanted: list[Field]) -> None:
    data = b"".join(codec.field(number, value) for number, value in wanted)
    assert list(codec.fields(data)) == wanted


def test_known_bytes_of_the_format() -> None:
    assert codec.field(1, 150) == b"\x08\x96\x01"
    assert codec.field(2, "testing") == b"\x12\x07testing"
    assert codec.field(1, 0) == codec.field(1, "") == codec.field(1, b"") == b""


def test_fixed_size_fields_are_passed_over_by_their_size() -> None:
    data = b"\x09" + b"8bytes!!" + b"\x15" + b"4byt" + codec.field(3, 7)
    assert list(codec.fields(data)) == [(1, b"8bytes!!"), (2, b"4byt"), (3, 7)]


@settings(deadline=None)  # a busy machine is not a failure
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_as_malformed(data: bytes) -> None:
    for reader in (codec.users_of, codec.stats_of):
        with contextlib.suppress(ValueError):
            reader(data)


@settings(deadline=None)  # a busy machine is not a failure
@given(field_lists.filter(bool), st.data())
def test_a_message_cut_anywhere_inside_a_field_is_malformed(wanted: list[Field], data: st.DataObject) -> None:
    *before, last = [codec.field(number, value) for number, value in wanted]
    cut = data.draw(st.integers(1, len(last) - 1))
    with pytest.raises(Malformed):
        list(codec.fields(b"".join(before) + last[:cut]))


@pytest.mark.parametrize(
    "data",
    [b"\x80" * 11, b"\x08" + b"\xff" * 9 + b"\x02", b"\x0b", b"\x0a\xff\xff\xff\xff\x0f"],
    ids=["a number without end", "a number beyond 64 bits", "a group", "a field longer than everything"],
)
def test_impossible_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(codec.fields(data))


def test_a_negative_number_is_refused_and_not_written_for_ever() -> None:
    with pytest.raises(ValueError, match="negative"):
        codec.field(1, -1)


def test_adding_a_user_says_what_xray_reads() -> None:
    data = codec.add_user("vless", XrayUser("customer", ID, "xtls-rprx-vision"))
    assert only_message(data)[1] == b"vless"
    assert only_message(data, 2)[1] == b"xray.app.proxyman.command.AddUserOperation"
    assert only_message(data, 2, 2, 1)[2] == b"customer"
    assert only_message(data, 2, 2, 1, 3)[1] == b"xray.proxy.vless.Account"
    assert only_message(data, 2, 2, 1, 3, 2) == {1: str(ID).encode(), 2: b"xtls-rprx-vision"}


def test_removing_a_user_names_only_that_user() -> None:
    data = codec.remove_user("vless", "customer")
    assert only_message(data, 2) == {
        1: b"xray.app.proxyman.command.RemoveUserOperation",
        2: codec.field(1, "customer"),
    }


def test_nobody_without_a_name_is_added_removed_or_blocked() -> None:
    with pytest.raises(ValueError, match="name"):
        codec.add_user("vless", XrayUser("", ID))
    with pytest.raises(ValueError, match="UUID"):
        codec.add_user("vless", XrayUser("customer", None))
    with pytest.raises(ValueError, match="protocol is trojan"):
        codec.add_user("vless", XrayUser("customer", ID), "trojan")
    with pytest.raises(ValueError, match="name"):
        codec.remove_user("vless", "")
    with pytest.raises(ValueError, match="name"):
        codec.add_block_rule("rule", "", "blocked")


def listed(user: XrayUser) -> bytes:
    """A user as Xray lists it."""
    account = codec.field(1, str(user.uuid)) + codec.field(2, user.flow)
    return codec.field(1, codec.field(2, user.email) + codec.field(3, codec.typed("xray.proxy.vless.Account", account)))


@settings(deadline=None)  # a busy machine is not a failure
@given(st.lists(st.builds(XrayUser, st.text(min_size=1, max_size=20), st.uuids(), st.sampled_from(["", "flow"]))))
def test_listed_users_are_read_whole(users: list[XrayUser]) -> None:
    assert codec.users_of(b"".join(map(listed, users))) == users


def test_the_blank_user_for_an_unknown_name_has_no_uuid() -> None:
    assert codec.users_of(b"\x0a\x00") == [XrayUser("", None)]
    assert codec.users_of(b"") == []


@pytest.mark.parametrize(
    "data",
    [
        codec.field(1, 5),
        codec.field(1, codec.field(2, 5)),
        listed(XrayUser("a", uuid4())).replace(b"-", b"x"),
        codec.field(1, codec.field(2, b"\xff")),
    ],
    ids=["a number for a user", "a number for a name", "a broken uuid", "a name that is not text"],
)
def test_a_list_of_users_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.users_of(data)


def test_counters_are_read_by_name_and_missing_values_are_zero() -> None:
    data = codec.field(1, codec.field(1, "user>>>a>>>traffic>>>uplink") + codec.field(2, 12))
    data += codec.field(1, codec.field(1, "user>>>a>>>traffic>>>downlink"))
    assert codec.stats_of(data) == {"user>>>a>>>traffic>>>uplink": 12, "user>>>a>>>traffic>>>downlink": 0}


def test_counters_are_asked_for_without_resetting_them() -> None:
    assert dict(codec.fields(codec.query_stats("user>>>"))) == {1: b"user>>>"}


def test_a_block_rule_is_appended_and_names_one_customer() -> None:
    data = codec.add_block_rule("removed:a", "a", "blocked")
    assert only_message(data)[2] == 1
    assert only_message(data, 1, 2, 2) == {1: b"blocked", 7: b"a", 19: b"removed:a"}
    assert dict(codec.fields(codec.remove_rule("removed:a"))) == {1: b"removed:a"}
