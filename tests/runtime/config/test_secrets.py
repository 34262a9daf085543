"""A secret comes from anywhere but the configuration file, and shows nowhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import attrs
import pytest

from runtime.config.errors import ConfigErrors
from runtime.config.loader import load_text
from runtime.config.secret import Secret, with_new_secrets
from tests.runtime.config.actors_for_config import Login, NodeSettings, ShopSettings

HERE = "tests.runtime.config.actors_for_config"
TEXT = f"""\
[actor.shop]
actor = "{HERE}:Shop"
[shop]
"""


def password(text: str, env: dict[str, str], at: Path) -> str:
    return load_text(text, env, path=at / "supervisor.toml").section(ShopSettings).password.reveal()


def private(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_a_secret_is_read_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    private(tmp_path / "password", "hunter2\n")
    assert password(TEXT + 'password_file = "password"\n', {}, tmp_path) == "hunter2"


# S-1106
def test_the_environment_wins_over_the_file_and_that_over_the_credentials_directory(tmp_path: Path) -> None:
    private(tmp_path / "password", "of the file")
    private(tmp_path / "other", "of the other file")
    private(tmp_path / "shop.password", "of the directory")
    directory = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with_file = TEXT + 'password_file = "password"\n'
    assert password(with_file, directory | {"ATLAS__SHOP__PASSWORD": "of the variable"}, tmp_path) == "of the variable"
    other = {"ATLAS__SHOP__PASSWORD_FILE": str(tmp_path / "other")}
    assert password(with_file, directory | other, tmp_path) == "of the other file"
    assert password(with_file, directory, tmp_path) == "of the file"
    assert password(TEXT, directory, tmp_path) == "of the directory"
    assert password(TEXT, {}, tmp_path) == ""


def test_secrets_of_arguments_and_of_keyed_entries_are_resolved_alike(tmp_path: Path) -> None:
    private(tmp_path / "t", "s3cret")
    text = f"""
        [actor.login]
        actor = "{HERE}:Login"
        args = {{ user = "u", token_file = "t" }}
        [actor.node]
        actor = "{HERE}:Node"
        for_each = "nodes"
        [nodes.oslo]
        url = "x"
    """
    private(tmp_path / "nodes.oslo.token", "of oslo")
    config = load_text(text, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, path=tmp_path / "c.toml")
    actor = config.children[0].make_actor()
    assert isinstance(actor, Login)
    assert actor.token == Secret("s3cret")
    assert config.keyed(NodeSettings)["oslo"].token == Secret("of oslo")


# S-1106
def test_a_secret_written_into_the_file_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigErrors) as raised:
        load_text(TEXT + 'password = "hunter2"\n')
    assert str(raised.value) == (
        "supervisor.toml:4: shop.password: is a secret and never written in this file: use password_file = "
        '"path", the environment variable ATLAS__SHOP__PASSWORD, or the credential "shop.password"'
    )


def test_a_secret_file_that_is_missing_or_empty_is_an_error_at_its_line(tmp_path: Path) -> None:
    text = TEXT + 'password_file = "none"\n'
    with pytest.raises(ConfigErrors, match=r":4: shop\.password_file: secret file .*none cannot be read: No such file"):
        load_text(text, path=tmp_path / "supervisor.toml")
    private(tmp_path / "none", " \n")
    with pytest.raises(ConfigErrors, match=r":4: shop\.password_file: secret file .*none is empty"):
        load_text(text, path=tmp_path / "supervisor.toml")
    with pytest.raises(ConfigErrors, match=r":4: shop\.password_file: expected a path, got an integer \(3\)"):
        load_text(TEXT + "password_file = 3\n")


def test_a_secret_file_that_others_can_read_gives_a_warning(tmp_path: Path) -> None:
    private(tmp_path / "p", "x").chmod(0o644)
    config = load_text(TEXT + 'password_file = "p"\n', path=tmp_path / "s.toml")
    (warning,) = config.warnings
    assert warning.endswith("p is open to others (mode 0644): chmod 600")


# S-1106
def test_a_secret_never_shows() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>10}",
        f"{[secret]}",
        repr(ShopSettings(password=secret)),
    ):
        assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret == Secret("hunter2")
    assert secret != "hunter2"
    assert len({secret, Secret("hunter2"), Secret()}) == 2
    assert not Secret()


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
    taken = with_new_secrets(running, fresh)
    assert taken == {"a": NodeSettings("u", Secret("new")), "b": NodeSettings("v", Secret("same"))}
    assert taken["b"] is running["b"]
    pair = with_new_secrets(Pair((Secret("1"), Secret("2"))), Pair((Secret("1"), Secret("3")), Secret("4")))
    assert [secret.reveal() for secret in (*pair.both, pair.maybe)] == ["1", "3", "4"]


def test_what_has_the_same_secrets_or_another_shape_is_left_as_it_is() -> None:
    running = ShopSettings(size=3, password=Secret("x"))
    assert with_new_secrets(running, ShopSettings(size=4, password=Secret("x"))) is running
    assert with_new_secrets(running, None) is running
    assert with_new_secrets((running,), (running, running)) == (running,)
    assert with_new_secrets(Secret("x"), "x") == Secret("x")


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
