"""A value that must never be printed; and taking over secrets that have changed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast, final

import attrs


@final
class Secret:
    """A password, token or key out of the configuration.

    `repr`, `str` and formatting show `***`; only `reveal()` gives the text, so that a search for it finds every place
    where a secret leaves its wrapping. An empty secret is false, equality compares the texts, and pickling is refused.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Never pass it to a log, a metric or an error."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return "***" if self._text else "Secret()"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        msg = "a Secret is not pickled: it would leave the process readable"
        raise TypeError(msg)


def with_new_secrets(running: Any, fresh: Any) -> Any:
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
        items = [with_new_secrets(mine, theirs) for mine, theirs in zip(running, fresh, strict=True)]
        is_same = all(before is after for before, after in zip(running, items, strict=True))
        return running if is_same else type(running)(items)
    return running


def _taken_over(running: Mapping[Any, Any], fresh: Mapping[Any, Any]) -> dict[Any, Any]:
    found = {}
    for key, mine in running.items():
        if key in fresh:
            theirs = with_new_secrets(mine, fresh[key])
            if theirs is not mine:
                found[key] = theirs
    return found
