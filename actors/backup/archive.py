"""The file format: a tar of which every byte follows from its manifest, so that no change goes unnoticed.

Any tar program lists and extracts it. The members, in this order: `manifest.json`, which has name, length and SHA-256 of
all others; `manifest.sha256`, the digest of the manifest; then those others. Reading computes anew what the headers, the padding
and the end must be and compares: what is not as `write_archive` would have written it is refused.

The digests tell damage. They do not tell a forger, who can make new ones: where that matters, keep the file out of others' reach.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final

import attrs

from actors.backup.errors import ArchiveRefused

FORMAT: Final = 1
"""The version of the format. A program reads those up to its own."""
_MANIFEST: Final = "manifest.json"
_DIGEST: Final = "manifest.sha256"
_BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = b"\0" * (2 * _BLOCK)
_PIECE: Final = 1 << 20
_LONGEST_MANIFEST: Final = 16 << 20
_NAME = re.compile(r"(?:[A-Za-z0-9_.@%+:-]+/)*[A-Za-z0-9_.@%+:-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class Source:
    """What is to become a member: its name in the archive, and a file, or the bytes themselves."""

    name: str
    content: bytes | BinaryIO = attrs.field(repr=False)
    """A file is read from its present position to its end."""


@attrs.frozen
class Member:
    """A member of an archive that was read: its name, its length in bytes, its digest, and where its content begins."""

    name: str
    size: int
    sha256: str
    offset: int


@attrs.frozen
class Archive:
    """A backup that is whole and unchanged. `facts` is what was written beside the members."""

    file: BinaryIO = attrs.field(repr=False)
    facts: Mapping[str, object]
    members: Mapping[str, Member]

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a member, in pieces. Raises ArchiveRefused at its end if the file was changed since it was opened."""
        member = self.members[name]
        digest = hashlib.sha256()
        self.file.seek(member.offset)
        for piece in _read_pieces(self.file, member.size):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != member.sha256:
            raise ArchiveRefused(f"the backup was changed while it was read: {name}")

    def read(self, name: str) -> bytes:
        """A small member as a whole."""
        return b"".join(self.pieces(name))


def write_archive(target: BinaryIO, facts: Mapping[str, object], sources: Sequence[Source]) -> None:
    """Write the archive to `target`, which need not be able to seek. Files among the sources are read twice.

    Raises ValueError for a name that an archive cannot have, and OSError.
    """
    for source in sources:
        _check_name(source.name)
    measured = [(source.name, *_measure(source.content)) for source in sources]
    entries = [{"name": name, "bytes": size, "sha256": sha256} for name, size, sha256 in measured]
    manifest = (json.dumps({"format": FORMAT, **facts, "members": entries}, indent=1) + "\n").encode()
    digest = (hashlib.sha256(manifest).hexdigest() + "\n").encode()
    written = 0
    sizes = [len(manifest), len(digest), *(size for _, size, _ in measured)]
    for source, size in zip((Source(_MANIFEST, manifest), Source(_DIGEST, digest), *sources), sizes, strict=True):
        written += _write_member(target, source, size)
    target.write(_END + _filled(written + len(_END), tarfile.RECORDSIZE))


def read_archive(file: BinaryIO) -> Archive:
    """Read and check the whole of a file that can seek. Raises ArchiveRefused when it is not a whole, unchanged backup."""
    file.seek(0)
    try:
        return _read(file)
    except ArchiveRefused:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArchiveRefused("the backup is damaged: its manifest cannot be read") from error


def _read(file: BinaryIO) -> Archive:
    manifest = _read_first(file, _MANIFEST, None)
    digest = _read_first(file, _DIGEST, 65)
    if hashlib.sha256(manifest).hexdigest().encode() + b"\n" != digest:
        raise ArchiveRefused("the backup was changed: its manifest has not the digest that is kept beside it")
    facts = json.loads(manifest)
    if not isinstance(facts["format"], int) or facts["format"] > FORMAT:
        raise ArchiveRefused(
            f"the backup has format {facts['format']}, and this program reads up to {FORMAT}: install ATLAS "
            f"{facts.get('atlas', 'of a newer version')} or newer"
        )
    members: dict[str, Member] = {}
    for entry in facts.pop("members"):
        name, size, sha256 = entry["name"], entry["bytes"], entry["sha256"]
        if not isinstance(name, str) or type(size) is not int or size < 0 or not _SHA256.fullmatch(sha256):
            raise ArchiveRefused("the backup is damaged: its manifest names something that is no file")
        _check_name(name)
        if name in members:
            raise ArchiveRefused(f"the backup is damaged: its manifest names {name} twice")
        _expect(file, _header(name, size), f"the header of {name}")
        offset, found = file.tell(), hashlib.sha256()
        for piece in _read_pieces(file, size):
            found.update(piece)
        if found.hexdigest() != sha256:
            raise ArchiveRefused(f"the backup was changed: {name} has not the digest that the manifest says")
        _expect(file, _filled(size, _BLOCK), f"what follows {name}")
        members[name] = Member(name, size, sha256, offset)
    _expect(file, _END + _filled(file.tell() + len(_END), tarfile.RECORDSIZE), "its end")
    if file.read(1):
        raise ArchiveRefused("the backup was changed: something follows its end")
    return Archive(file, facts, members)


def _read_first(file: BinaryIO, name: str, size: int | None) -> bytes:
    """The content of one of the first two members, whose lengths their own headers say."""
    head = file.read(_BLOCK)
    if len(head) < _BLOCK:
        raise ArchiveRefused("the file is no backup of ATLAS, or was cut short")
    try:
        found = tarfile.TarInfo.frombuf(head, "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise ArchiveRefused("the file is no backup of ATLAS, or is damaged at its beginning") from error
    if found.size > _LONGEST_MANIFEST or (size is not None and found.size != size) or head != _header(name, found.size):
        raise ArchiveRefused("the file is no backup of ATLAS, or is damaged at its beginning")
    content = b"".join(_read_pieces(file, found.size))
    _expect(file, _filled(found.size, _BLOCK), f"what follows {name}")
    return content


def _expect(file: BinaryIO, wanted: bytes, what: str) -> None:
    found = file.read(len(wanted))
    if len(found) < len(wanted):
        raise ArchiveRefused(f"the backup was cut short: {what} is missing")
    if found != wanted:
        raise ArchiveRefused(f"the backup was changed: {what} is not as it was written")


def _read_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(size, _PIECE))
        if not piece:
            raise ArchiveRefused("the backup was cut short")
        size -= len(piece)
        yield piece


def _measure(content: bytes | BinaryIO) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    begin, digest = content.tell(), hashlib.sha256()
    size = 0
    while piece := content.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    content.seek(begin)
    return size, digest.hexdigest()


def _write_member(target: BinaryIO, source: Source, size: int) -> int:
    content = source.content
    target.write(_header(source.name, size))
    if isinstance(content, bytes):
        target.write(content)
    else:
        while piece := content.read(_PIECE):
            target.write(piece)
    padding = _filled(size, _BLOCK)
    target.write(padding)
    return _BLOCK + size + len(padding)


def _header(name: str, size: int) -> bytes:
    """The one header that a member of this name and length has: nothing of the machine or the moment is in it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    header = info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")
    if len(header) != _BLOCK:
        raise ValueError(f"the name {name!r} is too long for an archive")
    return header


def _filled(size: int, unit: int) -> bytes:
    return b"\0" * (-size % unit)


def _check_name(name: str) -> None:
    """Refuse what is no plain path below a folder: an archive may come from anywhere."""
    if len(name) > 99 or not _NAME.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise ValueError(f"{name[:120]!r} is no name for a file in a backup")
