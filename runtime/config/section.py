"""Settings classes: the typed shape of one table of the configuration file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs

T = TypeVar("T")

_MARK = "__atlas_section__"


@attrs.frozen
class SectionMark:
    """What `@settings` notes on a class: its table's name and whether that table holds one entry per key."""

    name: str
    keyed: bool = False
    common: type | None = None
    """Of a keyed table: the class of the keys that stand in it beside its entries."""


def settings(section: str, *, keyed: bool = False, common: type | None = None) -> Callable[[type[T]], type[T]]:
    """Declare an attrs class as the shape of the table `[section]`.

    Every field is a key of the table; a field with a default may be left out. A field of type `Secret` is never written
    in the file: it is given as `<key>_file`, by the environment or by the credentials directory. With `keyed=True` the
    table is a mapping of such entries (`[nodes.paris]`, `[nodes.oslo]`), for use with `for_each`. `common` is another
    settings class of the same table, not keyed: its fields are keys that stand beside the entries (`[nodes] required`),
    so no entry can have the name of one.

    What no single field's validator can tell, `def check_configuration(self) -> Iterable[str]` says, a sentence for each thing
    that is wrong: the configuration is refused with them (see `Actor.check_configuration`).

    Raises TypeError when the class is not an attrs class.

        @settings("pool")
        @attrs.frozen
        class PoolSettings:
            size: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    """

    def mark(cls: type[T]) -> type[T]:
        if "__attrs_attrs__" not in cls.__dict__:
            msg = f"@settings({section!r}) needs an attrs class: put @attrs.frozen between it and class {cls.__name__}"
            raise TypeError(msg)
        setattr(cls, _MARK, SectionMark(section, keyed, common))
        return cls

    return mark


def section_of(cls: object) -> SectionMark | None:
    """The mark that `@settings` left on this very class (it is not inherited), or None."""
    if not isinstance(cls, type):
        return None
    mark = cls.__dict__.get(_MARK)
    return mark if isinstance(mark, SectionMark) else None
