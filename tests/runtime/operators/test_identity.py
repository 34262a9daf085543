"""Whoever is not recognised may do nothing; a role includes those before it; a token decides alone."""

from __future__ import annotations

import hashlib
import os

import pytest

from runtime.config.operators import OperatorSettings, Role
from runtime.operators import NotAllowed, Operators, demand, front_end
from runtime.operators.identity import account_of

ME = account_of(os.getuid())
TOKEN = "a-token-of-enough-chance"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def declared(**operators: OperatorSettings) -> Operators:
    return Operators(operators)


ANNA = OperatorSettings(Role.MONEY, token_sha256=digest(TOKEN), telegram_id=77)
BORIS = OperatorSettings(Role.SUPPORT, unix_user=ME)


def test_without_operators_the_unix_user_is_the_owner_by_name() -> None:
    who = Operators().identify(os.getuid())
    assert (who.actor, who.role, who.how) == (f"operator:{ME}", Role.OWNER, "unix")


def test_an_operator_is_recognised_by_the_unix_user() -> None:
    who = declared(anna=ANNA, boris=BORIS).identify(os.getuid())
    assert (who.name, who.role, who.how) == ("boris", Role.SUPPORT, "unix")


def test_a_token_decides_alone_also_for_a_known_unix_user() -> None:
    operators = declared(anna=ANNA, boris=BORIS)
    who = operators.identify(os.getuid(), TOKEN)
    assert (who.actor, who.role, who.how) == ("operator:anna", Role.MONEY, "token")
    for wrong in (TOKEN + "x", "", " ", digest(TOKEN), "\udcff", "x" * 10_000):
        with pytest.raises(NotAllowed, match="no operator has this token") as refused:
            operators.identify(os.getuid(), wrong)
        assert TOKEN not in str(refused.value)
        assert not wrong.strip() or wrong not in str(refused.value)
        assert (refused.value.who.actor, refused.value.exit_code) == (f"unknown:{ME}", 77)


def test_a_token_is_refused_where_no_operators_are_declared() -> None:
    with pytest.raises(NotAllowed, match=r"no \[operators\] are declared"):
        Operators().identify(os.getuid(), TOKEN)


def test_a_digest_in_capitals_is_the_same_digest() -> None:
    loud = OperatorSettings(Role.VIEWER, token_sha256=digest(TOKEN).upper())
    assert declared(loud=loud).identify(0, TOKEN).name == "loud"


def test_an_account_that_is_no_operator_is_told_what_to_do() -> None:
    with pytest.raises(NotAllowed, match=f"the unix user {ME} is no operator; the operators are anna") as refused:
        declared(anna=ANNA).identify(os.getuid())
    assert "ATLAS_OPERATOR_TOKEN_FILE" in str(refused.value)


def test_an_account_without_a_name_goes_by_its_number() -> None:
    assert account_of(3_999_999_999) == "3999999999"
    assert Operators().identify(3_999_999_999).name == "3999999999"


def test_by_telegram_only_who_is_declared() -> None:
    found = declared(anna=ANNA).by_telegram(77)
    assert found is not None
    assert (found.name, found.how) == ("anna", "telegram")
    assert declared(anna=ANNA).by_telegram(78) is None


@pytest.mark.parametrize("least", list(Role))
@pytest.mark.parametrize("has", list(Role))
def test_each_role_includes_those_before_it_and_no_other(has: Role, least: Role) -> None:
    who = declared(me=OperatorSettings(has, unix_user=ME)).identify(os.getuid())
    order = ["viewer", "support", "money", "owner"]
    if order.index(has) >= order.index(least):
        demand(who, least, "this")
    else:
        with pytest.raises(
            NotAllowed, match=f"this needs the role {least} or more, and me has {has}; .*operators.me.role"
        ):
            demand(who, least, "this")


def test_a_front_end_has_no_role_and_may_do_nothing_of_an_operators() -> None:
    who = front_end("web")
    assert (who.actor, who.role, who.how) == ("front_end:web", None, "front_end")
    with pytest.raises(NotAllowed, match="front end web, for a customer"):
        demand(who, Role.VIEWER, "this")


def test_who_may_do_something_is_listed() -> None:
    operators = declared(anna=ANNA, boris=BORIS, vera=OperatorSettings(Role.VIEWER, telegram_id=1))
    assert operators.with_role(Role.MONEY) == ["anna"]
    assert operators.with_role(Role.VIEWER) == ["anna", "boris", "vera"]
