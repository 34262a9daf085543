"""Values out of the environment win over the file, mean what the wanted type says, and are named in errors."""

import pytest

from runtime.config.errors import ConfigErrors
from runtime.config.loader import load_text
from tests.runtime.config.actors_for_config import Color, Node, NodeSettings, Shop, ShopSettings

HERE = "tests.runtime.config.actors_for_config"
SHOP = f'[actor."shop.main"]\nactor = "{HERE}:Shop"\n'


def errors(text: str, env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigErrors) as raised:
        load_text(text, env)
    return [str(problem) for problem in raised.value.problems]


# S-1105
def test_an_override_wins_over_the_file_and_over_the_default() -> None:
    env = {
        "ATLAS__SHOP__SIZE": "20",
        "ATLAS__SHOP__WAIT": "2.5",
        "ATLAS__SHOP__OPEN": "no",
        "ATLAS__SHOP__COLOR": "dark_green",
        "ATLAS__SHOP__TAGS": "a, b",
        "ATLAS__SHOP__WINDOW__BEGIN": "5",
        "ATLAS__ACTOR__SHOP_MAIN__ARGS__SIZES": "[1, 2]",
        "ATLAS__ACTOR__SHOP_MAIN__SHUTDOWN": "9",
        "ATLAS__SUPERVISOR__NAME": "42",
        "PATH": "/bin",
    }
    config = load_text(f"[shop]\nsize = 10\nopen = true\n{SHOP}args = {{ sizes = [9] }}\n", env)
    shop = config.section(ShopSettings)
    assert (shop.size, shop.wait, shop.open, shop.color, shop.tags) == (20, 2.5, False, Color.DARK_GREEN, ("a", "b"))
    assert shop.window is not None
    assert shop.window.begin == 5
    actor = config.children[0].make_actor()
    assert isinstance(actor, Shop)
    assert actor.sizes == [1, 2]
    assert config.children[0].table.shutdown == 9.0
    assert config.supervisor.name == "42"


def test_an_override_can_add_an_entry_to_a_keyed_section() -> None:
    text = f'[actor.node]\nactor = "{HERE}:Node"\nfor_each = "nodes"\n'
    config = load_text(text, {"ATLAS__NODES__LOCAL__URL": "http://local"})
    assert [plan.name for plan in config.children] == ["node.local"]
    actor = config.children[0].make_actor()
    assert isinstance(actor, Node)
    assert actor.node == NodeSettings("http://local")


def test_a_wrong_override_is_an_error_that_names_the_variable(subtests: pytest.Subtests) -> None:
    variable = "environment variable ATLAS__"
    cases = {
        "SHOP__SIZE": ("x", 'SHOP__SIZE: shop.size: expected an integer, got a string ("x")'),
        "SHOP__SIZ": ("1", 'SHOP__SIZ: shop.siz: unknown key; did you mean "size"?'),
        "SHOP__WAIT": ("nan", "SHOP__WAIT: shop.wait: expected a number, got a number (nan)"),
        "SHOP__WINDOW": ("{a", 'SHOP__WINDOW: shop.window: expected a table with begin, end, got a string ("{a")'),
        "SHP__SIZE": ("1", 'SHP__SIZE: shp: unknown table: no actor declared here takes it; did you mean "shop"?'),
        "SHOP": ("1", "SHOP: an override names a table and a key, e.g. ATLAS__POOL__SIZE=20"),
        "SHOP____SIZE": ("1", "SHOP____SIZE: an override names a table and a key"),
        "ACTOR__OTHER__PAUSED": ("1", "ACTOR__OTHER__PAUSED: there is no actor OTHER; known: SHOP_MAIN"),
        "SHOP__SIZE__X": ("1", "SHOP__SIZE__X: cannot set shop.size.x: shop.size is not a table"),
    }
    for name, (value, message) in cases.items():
        with subtests.test(name):
            found = errors(f"[shop]\nsize = 2\n{SHOP}", {f"ATLAS__{name}": value})
            assert len(found) == 1, found
            assert found[0].startswith(variable + message)


def test_two_keys_that_one_variable_fits_are_refused() -> None:
    text = f'{SHOP}[actor.shop_main]\nactor = "{HERE}:Plain"\n'
    assert errors(text, {"ATLAS__ACTOR__SHOP_MAIN__PAUSED": "1"}) == [
        'environment variable ATLAS__ACTOR__SHOP_MAIN__PAUSED: fits several keys: actor."shop.main", actor.shop_main'
    ]


ALIASES = f"""{SHOP}
[env_aliases]
SHOP_INTERVAL_SECONDS = 'actor."shop.main".args.interval'
BATCH_SIZE = ["shop.size", 'actor."shop.main".mailbox.capacity']
[shop]
"""


# S-1105
def test_an_alias_sets_its_keys_and_the_systematic_name_wins() -> None:
    env = {"SHOP_INTERVAL_SECONDS": "300", "BATCH_SIZE": "7", "ATLAS__SHOP__SIZE": "8"}
    config = load_text(ALIASES, env)
    actor = config.children[0].make_actor()
    assert isinstance(actor, Shop)
    assert (actor.interval, actor.shop.size) == (300.0, 8)
    assert config.children[0].table.mailbox.capacity == 7


def test_a_wrong_value_of_an_alias_names_the_old_variable() -> None:
    assert errors(ALIASES, {"SHOP_INTERVAL_SECONDS": "soon"}) == [
        'environment variable SHOP_INTERVAL_SECONDS: actor."shop.main".args.interval: '
        'expected a number, got a string ("soon")'
    ]


def test_an_alias_for_an_unread_key_is_an_error_though_its_variable_is_unset() -> None:
    text = f"""{SHOP}
[shop]
[env_aliases]
A = 'actor."shop.main".args.intervall'
B = "shop.siz"
C = "shp.size"
D = "actor.shop.paused"
E = 3
F = "shop"
G = 'actor."shop.main".pausd'
"""
    assert errors(text, {}) == [
        'supervisor.toml:6: env_aliases.A: actor."shop.main".args.intervall: unknown key; did you mean "interval"?',
        'supervisor.toml:7: env_aliases.B: shop.siz: unknown key; did you mean "size"?',
        'supervisor.toml:8: env_aliases.C: there is no table [shp]; did you mean "shop"?',
        'supervisor.toml:9: env_aliases.D: there is no actor "shop"; did you mean "shop.main"?',
        "supervisor.toml:10: env_aliases.E: expected the key that it sets, or a list of keys, "
        'e.g. "actor.auto_renewal.args.interval"',
        "supervisor.toml:11: env_aliases.F: expected the key that it sets, or a list of keys, "
        'e.g. "actor.auto_renewal.args.interval"',
        'supervisor.toml:12: env_aliases.G: actor."shop.main".pausd: unknown key; did you mean "paused"?',
    ]
