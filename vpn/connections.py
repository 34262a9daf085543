"""Who is behind which connection of Xray, as far as its access lines told."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from vpn.xray.lines import Access, Source


class Connections:
    """Open connections by customer. An address and port that is seen again belongs to whoever used it last.

    Xray drops access lines when it prints more than 128 at once, so a customer may have connections that are not here:
    counters that go on moving after a cut tell.
    """

    def __init__(self) -> None:
        self._owners: dict[Source, str] = {}
        self._sources: dict[str, set[Source]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    @property
    def customers(self) -> int:
        """How many customers have one or more."""
        return len(self._sources)

    def add(self, access: Access) -> None:
        """Note an access line."""
        self._drop(access.source)
        self._owners[access.source] = access.email
        self._sources.setdefault(access.email, set()).add(access.source)

    def of(self, email: str) -> frozenset[Source]:
        """The customer's connections."""
        return frozenset(self._sources.get(email, ()))

    def owner(self, source: Source) -> str | None:
        """Whose connection this is."""
        return self._owners.get(source)

    def forget(self, sources: AbstractSet[Source]) -> None:
        """These are closed."""
        for source in sources:
            self._drop(source)

    def all(self) -> frozenset[Source]:
        """Every connection whose owner is known."""
        return frozenset(self._owners)

    def _drop(self, source: Source) -> None:
        email = self._owners.pop(source, None)
        if email is not None:
            mine = self._sources[email]
            mine.discard(source)
            if not mine:
                del self._sources[email]
