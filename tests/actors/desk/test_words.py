"""Every text of the desk's pages is there in Russian."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import actors.desk
import runtime.desk
from runtime.desk.actor_pages import _DONE, _LABELS, _WHAT_FOLLOWS
from runtime.desk.russian import WORDS

_CALL = re.compile(r"""\bt\((['"])([^'"]+)\1\)""")
_TITLE = re.compile(r"""\b(?:Page|Figure|Row|Action|Button)\("[^"]*", "([^"]+)\"""")


def test_every_text_is_translated() -> None:
    known = {**WORDS}
    for file in Path(actors.desk.__path__[0]).glob("*.py"):
        known |= getattr(import_module(f"actors.desk.{file.stem}"), "_WORDS", {})
    wanted = {*_DONE.values(), *_LABELS.values(), *_WHAT_FOLLOWS.values()}
    for package in (runtime.desk, actors.desk):
        for file in Path(package.__path__[0]).rglob("*.html"):
            wanted |= {text for _, text in _CALL.findall(file.read_text())}
    for file in (*Path(actors.desk.__path__[0]).glob("*.py"), *Path(runtime.desk.__path__[0]).glob("*.py")):
        text = file.read_text()
        wanted |= {found for _, found in _CALL.findall(text)} | set(_TITLE.findall(text))
    assert sorted(wanted - known.keys()) == []
