"""Session cookies: whose they are, and what ends them."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address

import attrs
import pytest
import trio

from runtime.config.operators import OperatorSettings
from runtime.desk.session import A_MINUTE, LIFETIME, Sessions, Tries
from runtime.operators import NotAllowed, Operators, Role

TOKEN = "the token of anna"


def operator(token: str = TOKEN, role: Role = Role.MONEY) -> OperatorSettings:
    return OperatorSettings(role=role, token_sha256=hashlib.sha256(token.encode()).hexdigest())


@attrs.define
class Desk:
    """Sessions on a clock of the test's own."""

    declared: dict[str, OperatorSettings]
    now: float = 1_000_000.0

    def sessions(self, key: bytes = b"k" * 32) -> Sessions:
        return Sessions(lambda: Operators(self.declared), key, lambda: self.now)


def test_a_cookie_is_its_holders_with_the_role_of_this_moment_for_twelve_hours() -> None:
    desk = Desk({"anna.k": operator()})
    sessions = desk.sessions()
    cookie = sessions.sign_in(TOKEN)
    found = sessions.identify(cookie)
    assert found is not None and (found.name, found.role) == ("anna.k", Role.MONEY)
    desk.declared["anna.k"] = operator(role=Role.VIEWER)
    found = sessions.identify(cookie)
    assert found is not None and found.role is Role.VIEWER
    desk.now += LIFETIME + 1
    assert sessions.identify(cookie) is None


def test_another_token_another_key_or_a_dismissal_ends_every_session() -> None:
    desk = Desk({"anna": operator()})
    cookie = desk.sessions().sign_in(TOKEN)
    assert desk.sessions().identify(cookie) is not None, "another process with the same key"
    assert desk.sessions(b"x" * 32).identify(cookie) is None
    desk.declared["anna"] = operator("another token")
    assert desk.sessions().identify(cookie) is None
    desk.declared = {"boris": operator()}
    assert desk.sessions().identify(cookie) is None


@pytest.mark.parametrize(
    "forged",
    ["", ".", "..", "anna", "anna.1.", "anna.1000000.00", "anna.x.00", "boris.{rest}", "anna.9999999.{mac}", "é.1.2"],
)
def test_a_forged_cookie_is_nobodys(forged: str) -> None:
    sessions = Desk({"anna": operator(), "boris": operator("his token")}).sessions()
    _, issued, mac = sessions.sign_in(TOKEN).split(".")
    assert sessions.identify(forged.format(rest=f"{issued}.{mac}", mac=mac)) is None


def test_a_wrong_token_and_none_declared_are_refused_alike() -> None:
    for declared in ({"anna": operator()}, {}):
        with pytest.raises(NotAllowed):
            Desk(declared).sessions().sign_in("a guess")


async def test_a_source_may_try_five_times_and_then_waits(autojump_clock: trio.testing.MockClock) -> None:
    tries = Tries()
    source, other = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    assert [tries.wait(source) for _ in range(A_MINUTE)] == [0.0] * A_MINUTE
    assert tries.wait(source) > 0
    assert tries.wait(other) == 0.0
    await trio.sleep(13)
    assert tries.wait(source) == 0.0
