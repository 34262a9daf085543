"""A reload takes over secrets that differ, and nothing else."""

from __future__ import annotations

from pathlib import Path

import attrs

from runtime.config.fresh_secrets import with_fresh_secrets
from runtime.config.loader import load_text
from runtime.config.secret import Secret
from tests.runtime.config.actors_for_config import NodeSettings, ShopSettings


@attrs.frozen
class Pair:
    both: tuple[Secret, Secret]
    maybe: Secret | None = None


def test_only_secrets_are_taken_over_at_any_depth() -> None:
    running = {"a": NodeSettings("u", Secret("old")), "b": NodeSettings("v", Secret("same"))}
    fresh = {
        "a": NodeSettings("other", Secret("new"), 7),
        "b": NodeSettings("v", Secret("same")),
        "c": NodeSettings("w"),
    }
    taken = with_fresh_secrets(running, fresh)
    assert taken == {"a": NodeSettings("u", Secret("new")), "b": NodeSettings("v", Secret("same"))}
    assert taken["b"] is running["b"]
    pair = with_fresh_secrets(Pair((Secret("1"), Secret("2"))), Pair((Secret("1"), Secret("3")), Secret("4")))
    assert [secret.reveal() for secret in (*pair.both, pair.maybe)] == ["1", "3", "4"]


def test_what_has_the_same_secrets_or_another_shape_is_left_as_it_is() -> None:
    running = ShopSettings(size=3, password=Secret("x"))
    assert with_fresh_secrets(running, ShopSettings(size=4, password=Secret("x"))) is running
    assert with_fresh_secrets(running, None) is running
    assert with_fresh_secrets((running,), (running, running)) == (running,)
    assert with_fresh_secrets(Secret("x"), "x") == Secret("x")


def test_a_configuration_knows_its_secrets_by_their_keys(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("hunter2")
    here = "tests.runtime.config.actors_for_config"
    text = f'[actor.shop]\nactor = "{here}:Shop"\n[shop]\nsize = 3\npassword_file = "p"\n'
    running = load_text(text, path=tmp_path / "supervisor.toml")
    assert {key: secret.reveal() for key, secret in running.secrets.items()} == {"shop.password": "hunter2"}
    assert "hunter2" not in repr(running)
    (tmp_path / "p").write_text("hunter3")
    fresh = load_text(text.replace("3", "4"), path=tmp_path / "supervisor.toml")
    taken = running.take_secrets(fresh).section(ShopSettings)
    assert (taken.size, taken.password.reveal()) == (3, "hunter3")
