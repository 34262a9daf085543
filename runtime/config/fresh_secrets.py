"""Taking over secrets that have changed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs

from runtime.config.secret import Secret


def with_fresh_secrets(running: Any, fresh: Any) -> Any:
    """`running` with the secrets that `fresh` has in the same places; the very same object if none of them differs.

    Looks into attrs instances, mappings, lists and tuples. Everything that is no secret stays as it runs.
    """
    if isinstance(fresh, Secret) and (running is None or isinstance(running, Secret)):
        return running if running == fresh else fresh
    if type(running) is not type(fresh):
        return running
    if attrs.has(type(running)):
        fields = [field for field in attrs.fields(cast("Any", type(running))) if field.init]
        mine = {field.alias: getattr(running, field.name) for field in fields}
        theirs = {field.alias: getattr(fresh, field.name) for field in fields}
        taken = _taken_over(mine, theirs)
        return attrs.evolve(running, **taken) if taken else running
    if isinstance(running, Mapping):
        taken = _taken_over(running, fresh)
        return {**running, **taken} if taken else running
    if isinstance(running, list | tuple) and len(running) == len(fresh):
        items = [with_fresh_secrets(mine, theirs) for mine, theirs in zip(running, fresh, strict=True)]
        is_same = all(before is after for before, after in zip(running, items, strict=True))
        return running if is_same else type(running)(items)
    return running


def _taken_over(running: Mapping[Any, Any], fresh: Mapping[Any, Any]) -> dict[Any, Any]:
    found = {}
    for key, mine in running.items():
        if key in fresh:
            theirs = with_fresh_secrets(mine, fresh[key])
            if theirs is not mine:
                found[key] = theirs
    return found
