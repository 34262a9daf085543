"""The texts are complete in every language, and what buttons carry is read back or refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from actors.storefront.aliases import TOO_OLD, read_data, read_start
from actors.storefront.buttons import Press, base36, new_nonce, read_number, read_press
from actors.storefront.language import load_languages, problems
from actors.storefront.money import read_sum
from actors.telegram.html import Html, fill, isolated
from db.money import Money
from runtime import StartRefused

TEXTS = Path(__file__).parents[3] / "actors" / "storefront" / "texts"


def test_every_language_has_all_texts_with_the_same_placeholders() -> None:
    tables = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in TEXTS.glob("*.toml")}
    assert {"ru", "en"} <= tables.keys()
    assert [problem for code, table in tables.items() for problem in problems(code, table, tables["en"])] == []


def test_the_owners_texts_are_laid_over_ours_and_drifted_ones_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "en.toml").write_text('[texts]\nplans = "<b>Our plans</b>"\n', encoding="utf-8")
    assert load_languages(tmp_path)["en"].say("plans").plain == "Our plans"
    (tmp_path / "en.toml").write_text('[texts]\nbalance = "{money}"\nplans = "<b>open"\n', encoding="utf-8")
    with pytest.raises(StartRefused) as refused:
        load_languages(tmp_path)
    assert "texts.balance: its placeholders are {money}, and have to be {balance}" in str(refused.value)
    assert "<b> is not closed" in str(refused.value)


def test_the_longest_button_fits_into_what_telegram_allows() -> None:
    press = Press("po", ("cryptobot", "business", base36(3650), base36(99_999_99)), new_nonce())
    assert len(press.data) <= 64
    assert read_press(press.data) == press
    with pytest.raises(ValueError, match="64 are allowed"):
        _ = Press("po", ("x" * 64,)).data


@pytest.mark.parametrize("data", ["", "1", "1A", "2mn", "1mn~short", "1mn.а", "1mn." + "x" * 64, "\0", "1mn\n"])
def test_data_that_is_none_of_ours_is_too_old(data: str) -> None:
    assert read_data(data) == TOO_OLD


def test_a_number_in_a_button_never_exceeds_what_the_database_holds() -> None:
    assert read_number("zzzzzzzzzzzz") == 36**12 - 1 < 2**63
    assert [read_number(text) for text in ("", "Z", "-1", "zzzzzzzzzzzzz")] == [None] * 4


@pytest.mark.parametrize(
    ("data", "screen"),
    [("menu_main", "mn"), ("tariff_type:basic", "pl"), ("renewal_pay:1", "pl"), ("activate_trial", "tr")],
)
def test_buttons_of_the_old_bot_lead_somewhere(data: str, screen: str) -> None:
    assert read_data(data).screen == screen


def test_links_to_the_bot_say_who_invited_and_what_is_wanted() -> None:
    assert read_start("ref42").referrer == read_start("ref_42").referrer == 42
    assert read_start("plan_basic_30").press == Press("cf", ("basic", "u"))
    assert read_start("x" * 65) == read_start("<b>") == read_start("")


def test_what_a_person_wrote_is_never_markup_and_turns_no_direction() -> None:
    text = fill("<b>{name}</b>", {"name": isolated("<i>\u202eevil&")})
    assert text == Html("<b>\u2068&lt;i&gt;evil&amp;\u2069</b>")
    assert text.plain == "\u2068<i>evil&\u2069"


@pytest.mark.parametrize(("text", "kopecks"), [("250", 250_00), ("1 000 ₽", 1000_00), ("100,00", 100_00)])
def test_a_sum_is_read_as_people_write_it(text: str, kopecks: int) -> None:
    assert read_sum(text) == Money(kopecks)


@pytest.mark.parametrize("text", ["", "-5", "1e9", "99", "100001", "١٢٣", "250.5", "x" * 4096, "1.2.3", "NaN"])
def test_what_is_no_sum_is_none(text: str) -> None:
    assert read_sum(text) is None
