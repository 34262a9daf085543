"""Paths in a configuration."""

from __future__ import annotations

from pathlib import Path

from db.embedded import EmbeddedSettings
from runtime.config.loader import load_text


def test_a_relative_path_is_relative_to_the_file_also_when_it_is_a_default(tmp_path: Path) -> None:
    file = tmp_path / "supervisor.toml"
    assert load_text("", path=file).section(EmbeddedSettings).data_dir == tmp_path / ".atlas"
    actor = '[actor.postgres]\nactor = "actors.embedded_postgres:EmbeddedPostgres"\n'
    elsewhere = load_text(f'{actor}[embedded]\ndata_dir = "data/here"\n', path=file)
    assert elsewhere.section(EmbeddedSettings).data_dir == tmp_path / "data" / "here"


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    actor = '[actor.postgres]\nactor = "actors.embedded_postgres:EmbeddedPostgres"\n'
    text = f'{actor}[embedded]\ndata_dir = "/srv/atlas"\n'
    config = load_text(text, path=tmp_path / "supervisor.toml")
    assert config.section(EmbeddedSettings).data_dir == Path("/srv/atlas")
