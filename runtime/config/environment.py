"""Values out of the environment, laid over the file.

`ATLAS__POOL__SIZE=20` sets the key `size` of the table `[pool]`: two underscores between the parts, upper case, every
character that is no letter or digit written as one underscore (`[actor."pool.main"]` is `ATLAS__ACTOR__POOL_MAIN`).
`[env_aliases]` lets variables of other names set keys too; the systematic name wins over an alias.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from runtime.config.config_file import RawConfig, dotted, parse_dotted
from runtime.config.convert import EnvText
from runtime.config.errors import Place, Problem
from runtime.config.key_lines import KeyPath
from runtime.wording import did_you_mean

PREFIX: Final = "ATLAS__"


def variable_for(path: KeyPath) -> str:
    """The name of the environment variable that sets the key at `path`."""
    return PREFIX + "__".join(_normal(str(part)).upper() for part in path)


def apply_environment(source: RawConfig, env: Mapping[str, str]) -> None:
    """Lay aliases and then `ATLAS__…` variables over the file. Problems are noted in `source`, not raised."""
    for name, path in alias_targets(source):
        if name in env:
            _set(source, path, name, env[name])
    for name in sorted(env):
        if name.startswith(PREFIX):
            parts = name.removeprefix(PREFIX).split("__")
            if all(parts) and len(parts) > 1:
                _override(source, parts, name, env[name])
            else:
                _blame(source, name, "an override names a table and a key, e.g. ATLAS__POOL__SIZE=20")


def alias_targets(source: RawConfig, *, blame: bool = True) -> list[tuple[str, KeyPath]]:
    """Every alias with each key that it sets; wrong ones are left out and, with `blame`, noted in `source`."""
    note = source.blame if blame else _ignore
    found: list[tuple[str, KeyPath]] = []
    for name, targets in source.table(("env_aliases",)).items():
        here: KeyPath = ("env_aliases", name)
        for target in targets if isinstance(targets, list) else [targets]:
            path = parse_dotted(target) if isinstance(target, str) else None
            if path is None or len(path) < 2:
                note(here, 'expected the key that it sets, or a list of keys, e.g. "actor.auto_renewal.args.interval"')
            elif not isinstance(_get(source.data, path[:1]), dict):
                tables = [dotted((key,)) for key, value in source.data.items() if isinstance(value, dict)]
                note(here, f"there is no table [{path[0]}]{did_you_mean(str(path[0]), tables)}")
            elif path[0] == "actor" and not isinstance(_get(source.data, path[:2]), dict):
                note(here, _unknown_actor(source, str(path[1])))
            else:
                found.append((name, path))
    return found


def _ignore(_path: KeyPath, _message: str) -> None:
    pass


def _unknown_actor(source: RawConfig, name: str) -> str:
    return f'there is no actor "{name}"{did_you_mean(name, source.data.get("actor", {}))}'


def _get(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _normal(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", key.lower())


def _blame(source: RawConfig, name: str, message: str) -> None:
    source.problems.append(Problem(Place(source.path, variable=name), "", message))


def _override(source: RawConfig, parts: list[str], name: str, value: str) -> None:
    path: KeyPath = ()
    at: Any = source.data
    for part in parts:
        keys = at if isinstance(at, dict) else {}
        matches = [key for key in keys if _normal(key) == part.lower()]
        if len(matches) > 1:
            _blame(source, name, f"fits several keys: {', '.join(dotted((*path, key)) for key in matches)}")
            return
        if path == ("actor",) and not matches:
            known = ", ".join(_normal(key).upper() for key in keys)
            _blame(source, name, f"there is no actor {part}; known: {known}")
            return
        key = matches[0] if matches else part.lower()
        path = (*path, key)
        at = keys.get(key)
    _set(source, path, name, value)


def _set(source: RawConfig, path: KeyPath, name: str, value: str) -> None:
    at: Any = source.data
    for length, part in enumerate(path[:-1], start=1):
        at = at.setdefault(str(part), {})
        if not isinstance(at, dict):
            _blame(source, name, f"cannot set {dotted(path)}: {dotted(path[:length])} is not a table")
            return
    at[str(path[-1])] = EnvText(value)
    source.variables[path] = name
