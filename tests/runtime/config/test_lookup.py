"""The configuration file that is meant: asked for, by variable, here, shipped."""

from pathlib import Path

import pytest

import runtime
from runtime.config.lookup import find_config
from runtime.errors import ConfigError

SHIPPED = Path(runtime.__file__).resolve().parent.parent / "supervisor.toml"


def test_what_was_asked_for_wins_even_if_it_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "supervisor.toml").touch()
    given = tmp_path / "given.toml"
    assert find_config(given, {"ATLAS_CONFIG": "/other.toml"}, tmp_path) == given
    assert find_config(None, {"ATLAS_CONFIG": "/other.toml"}, tmp_path) == Path("/other.toml")
    assert find_config(None, {"ATLAS_CONFIG": ""}, tmp_path) == tmp_path / "supervisor.toml"


def test_without_a_file_here_the_shipped_one_is_used_or_the_error_says_where_it_looked(tmp_path: Path) -> None:
    if SHIPPED.is_file():
        assert find_config(None, {}, tmp_path) == SHIPPED
    else:
        with pytest.raises(ConfigError) as raised:
            find_config(None, {}, tmp_path)
        assert str(tmp_path / "supervisor.toml") in str(raised.value)
        assert str(SHIPPED) in str(raised.value)
        assert "--config" in str(raised.value)
