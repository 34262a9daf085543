"""The control socket lies where the configuration says, else in a place of the user's own; never where others rule."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.config.loader import load_text
from runtime.control.socket_path import LONGEST, make_directory, socket_path
from runtime.errors import ConfigError
from tests.runtime.atlas_process import short_directory


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def test_the_setting_wins_and_a_relative_one_is_relative_to_the_configuration(place: Path) -> None:
    absolute = load_text(f'[control]\nsocket = "{place}/a.sock"\n')
    assert socket_path(absolute, {"XDG_RUNTIME_DIR": "/run/user/1"}) == place / "a.sock"
    relative = load_text('[control]\nsocket = "b.sock"\n', path=place / "supervisor.toml")
    assert socket_path(relative, {}) == place / "b.sock"


def test_without_a_setting_the_runtime_directory_is_used_else_one_of_the_users_own() -> None:
    config = load_text('[supervisor]\nname = "shop"\n')
    assert socket_path(config, {"XDG_RUNTIME_DIR": "/run/user/1"}) == Path("/run/user/1/atlas/shop.sock")
    own = Path(tempfile.gettempdir()) / f"atlas-{os.geteuid()}" / "shop.sock"
    assert socket_path(config, {}) == own


def test_a_path_longer_than_the_kernel_takes_names_the_setting() -> None:
    longest = "/" + "x" * (LONGEST - 1)
    assert str(socket_path(load_text(f'[control]\nsocket = "{longest}"\n'), {})) == longest
    with pytest.raises(ConfigError, match=r"108 bytes long and may have 107: .*\[control\] socket") as raised:
        socket_path(load_text(f'[control]\nsocket = "{longest}y"\n'), {})
    assert raised.value.exit_code == 78
    with pytest.raises(ConfigError, match=r"XDG_RUNTIME_DIR and \[supervisor\] name"):
        socket_path(load_text(""), {"XDG_RUNTIME_DIR": longest})
    with pytest.raises(ConfigError, match="bytes long"):
        socket_path(load_text(f'[control]\nsocket = "/{"ü" * 54}"\n'), {})


def test_the_directory_is_made_for_its_owner_alone(place: Path) -> None:
    make_directory(place / "deep" / "er" / "a.sock")
    assert stat.S_IMODE((place / "deep" / "er").stat().st_mode) == 0o700
    make_directory(place / "deep" / "er" / "a.sock")


def test_a_directory_where_others_may_write_is_refused_but_the_temporary_one_is_not(place: Path) -> None:
    open_to_all = place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigError, match="lets everybody write; set \\[control\\] socket"):
        make_directory(open_to_all / "a.sock")
    open_to_all.chmod(0o1777)
    make_directory(open_to_all / "a.sock")


def test_a_file_in_the_way_is_named(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be used: .*file.*; set \[control\] socket to another place"):
        make_directory(place / "file" / "a.sock")
