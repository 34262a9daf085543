"""Finds the class of an actor by its dotted path, `package.module:Class`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import traceback
from collections.abc import Mapping
from types import ModuleType

import attrs

from runtime.config.errors import Invalid
from runtime.core.actor import Actor
from runtime.core.checks import forgotten_fields
from runtime.wording import did_you_mean

_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def actor_class(path: str) -> type[Actor]:
    """Import the class, from where it stands now if its package says in `MOVED_ACTORS` that it has moved.

    A package that moved its actors says so in its `__init__`: `MOVED_ACTORS` is a mapping from each old
    `package.module:Class` to the new one, so that a configuration that names the old one goes on working.

    Raises Invalid when there is no such module or name, its import fails or it is no actor.
    """
    if not _DOTTED.fullmatch(path):
        raise Invalid([((), f'expected "package.module:Class", e.g. "actors.pool.pool:PoolActor", got "{path}"')])
    path = _moved(path)
    module_name, _, name = path.partition(":")
    module = _import(module_name)
    found = getattr(module, name, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if _is_actor(value)]
        raise Invalid([((), f'module {module_name} has no "{name}"{did_you_mean(name, classes)}')])
    if not _is_actor(found):
        raise Invalid([((), f"{path} is not an actor: it must be a subclass of runtime.core.actor.Actor")])
    forgotten = forgotten_fields(found)
    if forgotten is not None:
        raise Invalid([((), forgotten)])
    checked: type[Actor] = found
    return checked


def _moved(path: str) -> str:
    """Where the class at this path stands now."""
    package = _import(path.partition(":")[0].partition(".")[0])
    moved: Mapping[str, str] = getattr(package, "MOVED_ACTORS", {})
    return moved.get(path, path)


def _is_actor(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Actor) and value is not Actor and attrs.has(value)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Invalid([((), f'there is no module "{error.name}"{_neighbours(error.name)}')]) from error
        raise Invalid([((), f"importing {name} failed: {error}")]) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # also what ends a process, or it would end this one as if all were well;
        # a class that its own room got wrong (a handler table, say) is an error of this line, with the place to look at
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        raise Invalid([((), f"importing {name} failed: {reason}")]) from error


def _neighbours(name: str) -> str:
    """Modules beside the missing one that are close to its name."""
    package, _, last = name.rpartition(".")
    if not package:
        return ""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ""
    import pkgutil

    names = [info.name for info in pkgutil.iter_modules(list(spec.submodule_search_locations))]
    return did_you_mean(last, names) if names else ""
