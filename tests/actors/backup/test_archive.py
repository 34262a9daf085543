"""A backup's file: any tar program reads it, and no byte of it can be changed or left away without being noticed."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.backup.archive import Source, read_archive, write_archive
from actors.backup.description import read_description
from actors.backup.errors import ArchiveRefused

FACTS: dict[str, object] = {
    "atlas": "0.1.0",
    "made_at": "2026-12-01T00:00:00+00:00",
    "database": {
        "database_id": "x",
        "purpose": "production",
        "schema": 1,
        "server": "18.4",
        "is_embedded": True,
        "pg_dump": "18.4",
    },
    "files": [
        {"member": "supervisor.toml", "place": "installation", "path": "supervisor.toml", "setting": ""},
        {"member": "files/1", "place": "data", "path": "node/local/token", "setting": ""},
    ],
    "not_inside": [],
}
CONTENT = {"supervisor.toml": b"[supervisor]\n", "files/1": b"t" * 700, "database.dump": bytes(range(256)) * 5}


def packed(facts: dict[str, object] | None = None, content: dict[str, bytes] | None = None) -> bytes:
    target = io.BytesIO()
    sources = [Source(name, body) for name, body in (content or CONTENT).items()]
    write_archive(target, facts or FACTS, sources)
    return target.getvalue()


def opened(whole: bytes) -> None:
    archive = read_archive(io.BytesIO(whole))
    read_description(archive)
    for name in archive.members:
        archive.read(name)


def test_what_was_written_is_read_also_from_files_and_by_other_programs(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(CONTENT["database.dump"])
    with (tmp_path / "dump").open("rb") as dump, (tmp_path / "a.tar").open("w+b") as target:
        write_archive(target, FACTS, [Source("supervisor.toml", b"x"), Source("database.dump", dump)])
        archive = read_archive(target)
        assert {name: archive.read(name) for name in archive.members} == {
            "supervisor.toml": b"x",
            "database.dump": CONTENT["database.dump"],
        }
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["/usr/bin/env", "tar", "-xf", str(tmp_path / "a.tar"), "-C", str(out)], check=True)
    assert (out / "database.dump").read_bytes() == CONTENT["database.dump"]
    named = {entry["name"]: entry["sha256"] for entry in json.loads((out / "manifest.json").read_text())["members"]}
    for name, digest in named.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    with tarfile.open(tmp_path / "a.tar") as read:
        assert read.getnames() == ["manifest.json", "manifest.sha256", "supervisor.toml", "database.dump"]


def test_a_change_of_any_single_byte_is_refused() -> None:
    whole = packed()
    opened(whole)
    unnoticed = []
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x01 if at % 2 else 0x80
        try:
            opened(bytes(changed))
        except ArchiveRefused:
            continue
        unnoticed.append(at)
    assert unnoticed == []


def test_one_that_was_cut_short_or_has_more_is_refused_at_every_length() -> None:
    whole = packed()
    for length in (*range(0, len(whole), 37), len(whole) - 1):
        with pytest.raises(ArchiveRefused):
            opened(whole[:length])
    with pytest.raises(ArchiveRefused, match="something follows its end"):
        opened(whole + b"\0")


@given(st.binary(max_size=3000))
def test_whatever_a_file_holds_it_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(ArchiveRefused):
        opened(content)


def file(place: str, path: str) -> dict[str, object]:
    entry = {"member": "files/1", "place": place, "path": path, "setting": ""}
    return {**FACTS, "files": [FACTS["files"][0], entry]}  # type: ignore[index]  # a list


@pytest.mark.parametrize(
    "facts",
    [
        file("data", "../../etc/passwd"),
        file("data", "/etc/passwd"),
        file("installation", "a/../../b"),
        file("installation", "a//b"),
        file("installation", ""),
        file("outside", "etc/passwd"),
        file("outside", "/etc/../../x"),
        file("elsewhere", "x"),
        file("installation", "supervisor.toml"),
        {**FACTS, "files": []},
        {**FACTS, "files": FACTS["files"][:1]},  # type: ignore[index]  # a list
        {**FACTS, "database": {}},
        {**FACTS, "database": 7},
        {},
    ],
)
def test_a_manifest_that_leads_out_of_its_place_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ArchiveRefused):
        opened(packed(facts or {"nothing": True}))


def test_a_name_that_leads_elsewhere_is_never_written() -> None:
    for name in ("../x", "/x", "a/./b", "", "a" * 120, "ä"):
        with pytest.raises(ValueError, match="no name for a file"):
            packed(content={name: b""})


def test_a_later_format_is_refused_with_the_version_that_reads_it() -> None:
    with pytest.raises(ArchiveRefused, match=r"install ATLAS 9\.9"):
        opened(packed({**FACTS, "atlas": "9.9", "format": 2}))


def test_a_file_that_changes_under_the_reader_is_noticed() -> None:
    kept = io.BytesIO(packed())
    archive = read_archive(kept)
    kept.seek(archive.members["database.dump"].offset)
    kept.write(b"other")
    with pytest.raises(ArchiveRefused, match="changed while it was read"):
        archive.read("database.dump")
