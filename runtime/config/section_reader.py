"""Reading settings sections, each once, when it is first asked for."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs

from runtime.config.config_file import RawConfig
from runtime.config.convert import convert
from runtime.config.errors import ConfigErrors, Invalid
from runtime.config.key_lines import KeyPath
from runtime.config.runtime_sections import NAME, OWN_TABLES
from runtime.config.secret_sources import resolve_secrets
from runtime.config.section import section_of
from runtime.config.table import field_types
from runtime.core.checks import wrong_with_settings
from runtime.error_text import error_text
from runtime.wording import did_you_mean

T = TypeVar("T")

SETTINGS_GROUP: Final = "atlas.settings"
"""Entry points (table name -> class) of sections that are known although no declared actor takes them."""


class SectionReader:
    """Reads sections by class. Errors are noted in the source, once."""

    def __init__(self, source: RawConfig, env: Mapping[str, str]) -> None:
        self._source = source
        self._env = env
        self.read: dict[type, object] = {}
        self.wrong: set[type] = set()
        """Classes whose section has errors: what `section` returned for them is a stand-in and must not be used."""

    def section(self, cls: type[T]) -> T:
        """The section of this class. Raises TypeError when it is no settings class."""
        if cls not in self.read:
            mark = section_of(cls)
            if mark is None:
                raise TypeError(f"{cls.__name__} is no settings class: decorate it with @settings")
            if mark.keyed:
                self.read[cls] = self._keyed(mark.name, cls, mark.common)
            else:
                self.read[cls] = self._entry((mark.name,), cls)
        return cast("T", self.read[cls])

    def section_or_raise(self, cls: type) -> object:
        """Like `section`, but raises ConfigErrors when it is wrong. For readers that come after loading."""
        value: object = self.section(cls)
        problems, self._source.problems = self._source.problems, []
        if problems:
            del self.read[cls]
            raise ConfigErrors(problems)
        return value

    def keyed(self, name: str) -> Mapping[str, object] | None:
        """The entries of the keyed section `[name]` if a class that was read claims it."""
        for cls, value in self.read.items():
            mark = section_of(cls)
            if mark is not None and mark.keyed and mark.name == name:
                return cast("Mapping[str, object]", value)
        return None

    def keyed_names(self) -> list[str]:
        """The names of all keyed sections that were read."""
        marks = [section_of(cls) for cls in self.read]
        return [mark.name for mark in marks if mark is not None and mark.keyed]

    def read_all(self, claims: Iterable[tuple[KeyPath, type]]) -> None:
        """Read every section that something claims (the path is blamed for wrong claims), and blame all other tables."""
        by_name: dict[str, type] = {}
        claimed = [(path, cls, mark) for path, cls in claims if (mark := section_of(cls)) is not None]
        commons = {mark.common for _, _, mark in claimed}
        for path, cls, mark in claimed:
            if cls in self.read or cls in commons:  # which is read along with the table's entries
                continue
            if mark.name in OWN_TABLES:
                self._source.blame(path, f"{cls.__qualname__} takes [{mark.name}], a table of the runtime's own")
                continue
            other = by_name.setdefault(mark.name, cls)
            if other is not cls:
                self._source.blame(
                    path, f"both {other.__qualname__} and {cls.__qualname__} take the table [{mark.name}]"
                )
        import importlib.metadata  # only the check of a whole configuration needs it, and it takes as long as click

        installed = {point.name: point for point in importlib.metadata.entry_points(group=SETTINGS_GROUP)}
        for name in self._source.data:
            if name in OWN_TABLES or name in by_name:
                continue
            if name in installed:
                try:
                    by_name[name] = installed[name].load()
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001  also one that exits: of somebody else's package anything may come
                    self._source.blame((name,), f"importing {installed[name].value} failed: {error_text(error)}")
            else:
                known = OWN_TABLES | by_name.keys() | installed.keys()
                self._source.blame(
                    (name,), f"unknown table: no actor declared here takes it{did_you_mean(name, known)}"
                )
        for cls in by_name.values():
            self.section(cls)

    def _keyed(self, name: str, cls: type, common: type | None) -> Mapping[str, object]:
        keys = self._source.table((name,))
        beside = set(field_types(common)) if common is not None else set()
        if common is not None:
            self.read[common] = self._entry((name,), common, only=beside)
        paths = [
            (name, key)
            for key in keys
            if key not in beside
            and is_name(self._source, (name, key))
            and is_table(self._source, (name, key), did_you_mean(key, beside))
        ]
        return {path[-1]: self._entry(path, cls) for path in paths}

    def _entry(self, path: KeyPath, cls: type, only: Container[str] | None = None) -> object:
        try:
            found = self._source.table(path)
            if only is not None:
                found = {key: value for key, value in found.items() if key in only}
            table = resolve_secrets(self._source, path, found, cls, self._env)
            value: object = convert(table, cls)
        except Invalid as error:
            for below, message in error.found:
                self._source.blame((*path, *below), message)
            self.wrong.add(cls)
            return None
        value = with_absolute_paths(value, self._source.path.parent)
        for sentence in wrong_with_settings(value):
            self._source.blame(path, sentence)
            self.wrong.add(cls)
        return value


def with_absolute_paths(value: Any, directory: Path) -> object:
    """The settings with every relative path, defaults included, taken as relative to the configuration file."""
    paths = {
        field.alias: (directory / path).absolute()
        for field in attrs.fields(type(value))
        if isinstance(path := getattr(value, field.name), Path) and not path.is_absolute()
    }
    return attrs.evolve(value, **paths) if paths else value


def is_name(source: RawConfig, path: KeyPath) -> bool:
    """Whether the last part is a legal name; blamed if not."""
    if re.fullmatch(NAME, str(path[-1])):
        return True
    source.blame(path, "a name has letters, digits, dots, hyphens and underscores, at most 63 of them")
    return False


def is_table(source: RawConfig, path: KeyPath, hint: str = "") -> bool:
    """Whether a table stands at `path`; blamed if not, with the hint behind."""
    at: Any = source.data
    for part in path:
        at = at[part]
    if not isinstance(at, dict):
        source.blame(path, f"expected a table{hint}")
    return isinstance(at, dict)
