"""From `[actor."…"]` tables to child plans with their start arguments."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

import attrs

from runtime.config.actor_class import actor_class
from runtime.config.config_file import RawConfig
from runtime.config.convert import convert
from runtime.config.describe import is_union
from runtime.config.errors import Invalid
from runtime.config.groups import read_groups
from runtime.config.key_lines import KeyPath
from runtime.config.secret_sources import resolve_secrets
from runtime.config.section import section_of
from runtime.config.section_reader import SectionReader, is_name, is_table
from runtime.config.table import bad_values, build, field_types, read_arguments
from runtime.config.tree import ChildPlan, DeclaredTree, resolve_needs
from runtime.config.tree_tables import ActorTable
from runtime.core.actor import Actor
from runtime.core.checks import wrong_with_actor
from runtime.wording import did_you_mean


class PlanReader:
    """Reads the actor tables. Errors are noted in the source; a table with errors gives no plan."""

    def __init__(self, source: RawConfig, sections: SectionReader, env: Mapping[str, str]) -> None:
        self._source = source
        self._sections = sections
        self._env = env
        self.tables: dict[str, ActorTable] = {}
        self.classes: dict[str, type[Actor]] = {}
        self._types: dict[str, Mapping[str, Any]] = {}

    def read_tables(self) -> None:
        """Read every table and import its class."""
        for name in self._source.table(("actor",)):
            path: KeyPath = ("actor", name)
            if not is_name(self._source, path) or not is_table(self._source, path):
                continue
            raw = self._source.table(path)
            try:
                self.tables[name] = convert(raw, ActorTable)
            except Invalid as error:
                self._blame(path, error)
                # go on with what can be read, so that errors in `args` and `needs` are found as well
                readable, _ = read_arguments(raw, ActorTable, convert, injected={})
                rest: dict[str, Any] = {
                    key: readable[key] for key in ("args", "needs", "for_each", "group") if key in readable
                }
                self.tables[name] = ActorTable(actor=str(raw.get("actor", "")), **rest)
            where = raw.get("actor")
            if isinstance(where, str):
                try:
                    cls = actor_class(where)
                    self._types[name] = field_types(cls)
                    self.classes[name] = cls
                except Invalid as error:
                    self._blame((*path, "actor"), error)

    def claims(self) -> Iterator[tuple[KeyPath, type]]:
        """Every settings class that a start argument takes, with the key to blame for it."""
        for name, types_wanted in self._types.items():
            for wanted in types_wanted.values():
                cls = settings_class(wanted)
                if cls is not None:
                    yield ("actor", name, "actor"), cls

    def plans(self) -> DeclaredTree:
        """All children and groups in start order. The sections must have been read."""
        found: dict[str, ChildPlan] = {}
        for name, table in self.tables.items():
            if name not in self.classes:
                continue
            for plan in self._of_table(name, table):
                first = found.setdefault(plan.name, plan)
                if first is not plan:
                    where = self._source.place(("actor", first.declared))
                    self._source.blame(("actor", name), f'there is already a child "{plan.name}", from {where}')
        return resolve_needs(self._source, list(found.values()), self.tables, read_groups(self._source))

    def argument_names(self, name: str) -> list[str] | None:
        """The keys that `args` of this actor may have; None when its class is not known."""
        types_wanted = self._types.get(name)
        if types_wanted is None:
            return None
        return [alias for alias, wanted in types_wanted.items() if settings_class(wanted) is None]

    def _blame(self, path: KeyPath, error: Invalid) -> None:
        for below, message in error.found:
            self._source.blame((*path, *below), message)

    def _of_table(self, name: str, table: ActorTable) -> Iterator[ChildPlan]:
        if table.for_each is None:
            yield from self._plan(name, name, None)
            return
        entries = self._sections.keyed(table.for_each)
        if entries is None:
            hint = did_you_mean(table.for_each, self._sections.keyed_names())
            message = f'"{table.for_each}" is not a section with one entry per key that an actor takes{hint}'
            self._source.blame(("actor", name, "for_each"), message)
            return
        for key in entries:
            yield from self._plan(name, f"{name}.{key}", key)

    def _plan(self, declared: str, name: str, key: str | None) -> Iterator[ChildPlan]:
        path: KeyPath = ("actor", declared, "args")
        table, cls = self.tables[declared], self.classes[declared]
        injected, is_whole = self._injected(declared, key)
        try:
            given = resolve_secrets(self._source, path, table.args, cls, self._env)
            arguments, found = read_arguments(given, cls, convert, injected=injected)
        except Invalid as error:
            self._blame(path, error)
            return
        if found or not is_whole:
            self._blame(
                path, Invalid(found + bad_values(cls, {k: v for k, v in arguments.items() if k not in injected}))
            )
            return
        try:
            actor = build(cls, arguments, given)
        except Invalid as error:
            self._blame(path, error)
            return
        for sentence in wrong_with_actor(actor, name, table.shutdown):
            self._source.blame(("actor", declared), sentence)
        yield ChildPlan(name, declared, table, cls, arguments)

    def _injected(self, declared: str, key: str | None) -> tuple[dict[str, object], bool]:
        """The arguments that are not written in `args`, and whether all are right.

        Where a section is wrong (which is reported there) None stands in, so that the written arguments can be checked.
        """
        table = self.tables[declared]
        injected: dict[str, object] = {}
        is_whole = True
        for alias, wanted in self._types[declared].items():
            cls = settings_class(wanted)
            mark = section_of(cls)
            if cls is None or mark is None:
                if alias == "key" and key is not None and wanted is str:
                    injected[alias] = key
                continue
            injected[alias] = None
            if cls not in self._sections.read or cls in self._sections.wrong:
                is_whole = False
            elif not mark.keyed or not isinstance(wanted, type):
                injected[alias] = self._sections.read[cls]
            elif key is not None and mark.name == table.for_each:
                injected[alias] = (self._sections.keyed(mark.name) or {})[key]
            else:
                is_whole = False
                injected.setdefault("key", None)
                self._source.blame(
                    ("actor", declared), f'takes one entry of [{mark.name}]: add for_each = "{mark.name}"'
                )
        return injected, is_whole


def settings_class(wanted: Any) -> type | None:
    """The settings class in `Settings`, `Settings | None` or `Mapping[str, KeyedSettings]`; None for any other type."""
    if is_union(wanted):
        found = [settings_class(part) for part in get_args(wanted)]
        return next((cls for cls in found if cls is not None), None)
    if get_origin(wanted) in (dict, collections.abc.Mapping):
        item = get_args(wanted)[1]
        mark = section_of(item)
        return item if isinstance(item, type) and mark is not None and mark.keyed else None
    return wanted if isinstance(wanted, type) and attrs.has(wanted) and section_of(wanted) is not None else None
