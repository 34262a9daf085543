"""What a backup says of itself, read with suspicion: the file may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import attrs

from actors.backup.archive import Archive
from actors.backup.contents import DATA, INSTALLATION, OUTSIDE, KeptFile
from actors.backup.database import DatabaseFacts
from actors.backup.errors import ArchiveRefused

CONFIG: Final = "supervisor.toml"
"""The member that is the configuration, whatever it was called."""
DUMP: Final = "database.dump"
_PLACES = (INSTALLATION, DATA, OUTSIDE)


@attrs.frozen
class Description:
    """The facts of a backup. `files` are members by what they are; the first is the configuration."""

    atlas: str
    made_at: str
    database: DatabaseFacts
    is_embedded: bool
    """Whether the database was the embedded one."""
    pg_dump: str
    files: Sequence[tuple[str, KeptFile]] = attrs.field(repr=False)
    """Member, and the file without its content."""
    not_inside: Sequence[str]
    """What the environment said of the installation."""


def describe(
    kept: Sequence[KeptFile], facts: DatabaseFacts, *, is_embedded: bool, pg_dump: str, **more: object
) -> dict[str, object]:
    """The facts of a new backup, as `read_description` reads them."""
    return {
        **more,
        "database": {**attrs.asdict(facts), "is_embedded": is_embedded, "pg_dump": pg_dump},
        "files": [
            {"member": member(number), "place": one.place, "path": one.path, "setting": one.setting}
            for number, one in enumerate(kept)
        ],
    }


def member(number: int) -> str:
    """The name of a file in the archive. What it is called outside stands in the manifest: it may be anything."""
    return CONFIG if number == 0 else f"files/{number}"


def read_description(archive: Archive) -> Description:
    """Raises ArchiveRefused for facts that a backup of ours cannot have, such as a path that leaves its place."""
    try:
        return _read(archive, archive.facts)
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveRefused("the backup is damaged: its manifest does not say what it has to") from error


def _read(archive: Archive, facts: Mapping[str, Any]) -> Description:
    database = dict(facts["database"])
    is_embedded, pg_dump = database.pop("is_embedded"), database.pop("pg_dump")
    found = DatabaseFacts(**database)
    int(pg_dump.split(".")[0])
    files = []
    for number, entry in enumerate(facts["files"]):
        one = KeptFile(entry["place"], entry["path"], b"", entry["setting"])
        if entry["member"] != member(number) or member(number) not in archive.members or not _is_safe(one):
            raise ValueError(f"file {number}")
        files.append((member(number), one))
    if not files or files[0][1].place != INSTALLATION or "/" in files[0][1].path or type(found.schema) is not int:
        raise ValueError("the configuration")
    if set(archive.members) != {DUMP, *(name for name, _ in files)}:
        raise ValueError("members that nothing names")
    places = [(one.place, one.path) for _, one in files]
    if len(set(places)) != len(places):
        raise ValueError("two files of one name")
    return Description(
        str(facts["atlas"]), str(facts["made_at"]), found, bool(is_embedded), pg_dump, files, list(facts["not_inside"])
    )


def _is_safe(one: KeptFile) -> bool:
    path = PurePosixPath(one.path)
    is_plain = bool(path.parts) and ".." not in path.parts and "\0" not in one.path and str(path) == one.path
    return one.place in _PLACES and is_plain and path.is_absolute() is (one.place == OUTSIDE)
