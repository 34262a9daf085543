"""The storefront's texts: one TOML file a language, checked as a whole before the first customer sees one.

Our files lie in `texts/`; a folder of the owner's may replace any text and add languages. Every language has the same texts with
the same placeholders and nothing but Telegram's markup, or the storefront does not start.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import attrs

from actors.notices.language import Language
from actors.telegram.html import Html, fill, isolated, markup_error, placeholders
from db.money import Money
from runtime import StartRefused

BASE: Final = "en"
"""What others are compared with, and what is spoken to whom no language fits."""
_ALIASES: Final = {"tj": "tg", "be": "ru", "uk": "ru", "kk": "ru"}
"""Codes that mean another language, or whose speakers mostly read it, where there is none of their own."""
_TABLES: Final = ("nouns", "words", "buttons", "texts")
_SCALARS: Final = ("name", "plural", "zone", "thousands", "decimals")


def _slavic(number: int) -> int:
    last, teens = number % 10, number % 100 // 10 == 1
    if last == 1 and not teens:
        return 0
    return 1 if 2 <= last <= 4 and not teens else 2


_PLURALS: Final[Mapping[str, tuple[int, Callable[[int], int]]]] = {
    "one": (1, lambda _: 0),
    "two": (2, lambda number: int(number != 1)),
    "slavic": (3, _slavic),
}
"""How many forms a noun has, and which goes with a number."""


@attrs.frozen
class Texts:
    """Everything that the storefront says in one language."""

    code: str
    name: str
    """What its speakers call it."""
    language: Language
    buttons: Mapping[str, str]
    texts: Mapping[str, str]

    def say(self, key: str, **values: Html | str) -> Html:
        """A text with its placeholders filled; plain values are escaped. Raises KeyError for an unknown one."""
        return fill(self.texts[key], values)

    def button(self, key: str, **values: str) -> str:
        """What a button says: plain text."""
        return self.buttons[key].format_map(values)

    def money(self, money: Money) -> str:
        """An amount."""
        return self.language.money(money.amount, money.currency)

    def tariff(self, code: str | None) -> str:
        """The name of a tariff."""
        return self.language.word(code or "")

    def days(self, number: int) -> str:
        """A number of days."""
        return self.language.count("days", number)

    def size(self, number: int) -> str:
        """Bytes in gigabytes, with one decimal below ten."""
        gigabytes = number / 10**9
        text = f"{gigabytes:.1f}".replace(".", self.language.decimals) if gigabytes < 10 else f"{gigabytes:.0f}"
        return f"{text}\u00a0{self.language.word('gigabytes')}"

    def foreign(self, text: str) -> str:
        """What somebody else wrote, kept from turning the direction of what follows."""
        return isolated(text)


def choose(languages: Mapping[str, Texts], code: str) -> Texts:
    """The language of this code, or the nearest that there is."""
    short = code.lower()[:2]
    for candidate in (short, _ALIASES.get(short, "")):
        if candidate in languages:
            return languages[candidate]
    return languages[BASE]


def load_languages(own: Path | None) -> Mapping[str, Texts]:
    """All languages, ours with the owner's folder `own` laid over. Raises StartRefused with everything that is wrong."""
    shipped = _shipped()
    found = {code: dict(table) for code, table in shipped.items()}
    wrong: list[str] = []
    if own is not None:
        if not own.is_dir():
            wrong.append(f"storefront.texts is {own}, and there is no such folder")
        for path in sorted(own.glob("*.toml")) if own.is_dir() else ():
            try:
                laid = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                wrong.append(f"{path}: {error}")
                continue
            found[path.stem] = _laid_over(found.get(path.stem, {}), laid)
    wrong += [problem for code, table in found.items() for problem in problems(code, table, shipped[BASE])]
    if wrong:
        raise StartRefused("; ".join(wrong), exit_code=os.EX_CONFIG)
    return {code: _texts(code, table) for code, table in sorted(found.items())}


def problems(code: str, table: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a language's file, a sentence each."""
    where = f"storefront texts {code}.toml"
    if not (len(code) == 2 and code.isascii() and code.islower()):
        yield f"{where}: a file is named by a code of two small letters"
    for name in _SCALARS:
        if not isinstance(table.get(name), str):
            yield f"{where}: {name} is missing"
    if table.get("plural") not in _PLURALS:
        yield f"{where}: plural is one of {', '.join(_PLURALS)}"
        return
    if len(table.get("months", ())) != 12:
        yield f"{where}: months has twelve names"
    for part in _TABLES:
        ours, theirs = table.get(part, {}), base[part]
        for key in theirs.keys() - ours.keys():
            yield f"{where}: {part}.{key} is missing"
        for key in ours.keys() - theirs.keys():
            yield f"{where}: {part}.{key} is no text of the storefront"
        for key in theirs.keys() & ours.keys():
            yield from (
                f"{where}: {part}.{key}: {why}" for why in _differs(part, ours[key], theirs[key], table["plural"])
            )


def _differs(part: str, ours: object, theirs: object, plural: str) -> Iterator[str]:
    if part == "nouns":
        forms = _PLURALS[plural][0]
        if not (isinstance(ours, list) and len(ours) == forms and all(isinstance(form, str) for form in ours)):
            yield f"it has {forms} forms"
        return
    if not isinstance(ours, str) or not ours:
        yield "it is empty or no text"
        return
    try:
        has, wants = placeholders(ours), placeholders(str(theirs))
    except ValueError as error:
        yield str(error)
        return
    if has != wants:
        yield f"its placeholders are {_named(has)}, and have to be {_named(wants)}"
    if part == "texts" and (broken := markup_error(ours)):
        yield broken


def _named(names: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names)) or "none"


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    laid = dict(under)
    for name, value in over.items():
        laid[name] = {**under.get(name, {}), **value} if isinstance(value, dict) else value
    return laid


def _shipped() -> Mapping[str, Mapping[str, Any]]:
    folder = files("actors.storefront") / "texts"
    return {
        path.name.removesuffix(".toml"): tomllib.loads(path.read_text(encoding="utf-8"))
        for path in folder.iterdir()
        if path.name.endswith(".toml")
    }


def _texts(code: str, table: Mapping[str, Any]) -> Texts:
    language = Language(
        code=code,
        months=tuple(table["months"]),
        zone=table["zone"],
        thousands=table["thousands"],
        decimals=table["decimals"],
        plural=_PLURALS[table["plural"]][1],
        nouns={name: tuple(forms) for name, forms in table["nouns"].items()},
        words=table["words"],
        clauses={},
        texts={},
    )
    return Texts(code, table["name"], language, table["buttons"], table["texts"])
