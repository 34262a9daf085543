"""The key file of payout destinations is made once with mode 0600, never replaced, and refused where others may read it."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.sealing import key_path, open_seal, seal_opener
from db.embedded import EmbeddedSettings, layout_of
from db.settings import WithdrawalSettings
from db.work.sealing import SealError


def at(path: Path) -> WithdrawalSettings:
    return WithdrawalSettings(key_file=path)


def test_it_is_made_once_for_its_owner_alone_and_read_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "payout.key"
    first = open_seal(at(path), EmbeddedSettings())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    content = path.read_bytes()
    assert open_seal(at(path), EmbeddedSettings()) == first
    assert path.read_bytes() == content
    assert [one.name for one in path.parent.iterdir()] == ["payout.key"]


def test_several_processes_at_once_make_one_key(tmp_path: Path) -> None:
    path = tmp_path / "payout.key"
    with ThreadPoolExecutor(8) as several:
        found = list(several.map(lambda _: open_seal(at(path), EmbeddedSettings()), range(16)))
    assert len({seal.fingerprint for seal in found}) == 1


def test_by_default_it_is_in_the_data_directory(tmp_path: Path) -> None:
    embedded = EmbeddedSettings(data_dir=tmp_path)
    assert key_path(WithdrawalSettings(), embedded) == layout_of(embedded).home / "payout.key"


@pytest.mark.parametrize(
    ("content", "mode", "code", "said"),
    [
        ("07" * 32, 0o644, 77, "is open to everybody"),
        ("07" * 32, 0o602, 77, "is open to everybody"),
        ("", 0o600, 78, "holds no key"),
        ("no key", 0o600, 78, "line 1"),
    ],
)
def test_a_bad_file_is_named_with_its_setting_and_stays(
    content: str, mode: int, code: int, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "payout.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(SealError, match=said) as refused:
        open_seal(at(path), EmbeddedSettings())
    assert refused.value.exit_code == code
    assert str(path) in str(refused.value)
    assert "withdrawals.key_file" in str(refused.value)
    assert path.read_text() == content


def test_a_place_where_none_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "payout.key", tmp_path):
        with pytest.raises(SealError, match="the key file of payout destinations cannot be") as refused:
            open_seal(at(path), EmbeddedSettings())
        assert refused.value.exit_code in (77, 78)


def test_a_file_that_gets_right_is_read_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "payout.key"
    path.write_text("")
    path.chmod(0o600)
    opener = seal_opener(at(path), EmbeddedSettings())
    with pytest.raises(SealError):
        opener()
    path.write_text("07" * 32)
    assert opener() is opener()
    path.unlink()
    assert opener().fingerprint, "what was read is kept"
