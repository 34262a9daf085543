"""The configuration file that is meant: asked for, by variable, here, shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

import runtime
from db.embedded import EmbeddedSettings
from runtime.child import GiveUp, Restart
from runtime.config.config import Config
from runtime.config.errors import ConfigErrors
from runtime.config.loader import find_config, load, load_control, load_sections, load_text
from runtime.config.secret import Secret
from runtime.core.mailbox import Overflow
from runtime.errors import ConfigError
from runtime.restart_limits import Backoff
from tests.runtime.config.actors_for_config import (
    AllNodesSettings,
    Color,
    Node,
    NodeSettings,
    Plain,
    Shop,
    ShopSettings,
    Window,
)

SHIPPED = Path(runtime.__file__).resolve().parent.parent / "supervisor.toml"


def test_what_was_asked_for_wins_even_if_it_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "supervisor.toml").touch()
    given = tmp_path / "given.toml"
    assert find_config(given, {"ATLAS_CONFIG": "/other.toml"}, tmp_path) == given
    assert find_config(None, {"ATLAS_CONFIG": "/other.toml"}, tmp_path) == Path("/other.toml")
    assert find_config(None, {"ATLAS_CONFIG": ""}, tmp_path) == tmp_path / "supervisor.toml"


def test_without_a_file_here_the_shipped_one_is_used_or_the_error_says_where(tmp_path: Path) -> None:
    if SHIPPED.is_file():
        assert find_config(None, {}, tmp_path) == SHIPPED
    else:
        with pytest.raises(ConfigError) as raised:
            find_config(None, {}, tmp_path)
        assert str(tmp_path / "supervisor.toml") in str(raised.value)
        assert str(SHIPPED) in str(raised.value)
        assert "--config" in str(raised.value)


def test_a_relative_path_is_relative_to_the_file_also_when_it_is_a_default(tmp_path: Path) -> None:
    file = tmp_path / "supervisor.toml"
    assert load_text("", path=file).section(EmbeddedSettings).data_dir == tmp_path / ".atlas"
    actor = '[actor.postgres]\nactor = "actors.pool.embedded_postgres:EmbeddedPostgres"\n'
    elsewhere = load_text(f'{actor}[embedded]\ndata_dir = "data/here"\n', path=file)
    assert elsewhere.section(EmbeddedSettings).data_dir == tmp_path / "data" / "here"


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    actor = '[actor.postgres]\nactor = "actors.pool.embedded_postgres:EmbeddedPostgres"\n'
    text = f'{actor}[embedded]\ndata_dir = "/srv/atlas"\n'
    config = load_text(text, path=tmp_path / "supervisor.toml")
    assert config.section(EmbeddedSettings).data_dir == Path("/srv/atlas")


HERE = "tests.runtime.config.actors_for_config"


def errors(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigErrors) as raised:
        load_text(text, env)
    assert raised.value.exit_code == 78
    assert str(raised.value).splitlines() == [str(problem) for problem in raised.value.problems]
    return [str(problem) for problem in raised.value.problems]


# S-1103
def test_settings_and_arguments_reach_the_actor_typed() -> None:
    config = load_text(f"""
        [shop]
        size = 20
        wait = 3
        mode = "fast"
        color = "dark_green"
        tags = ["a", "b"]
        window = {{ begin = 8 }}

        [actor.shop]
        actor = "{HERE}:Shop"
        restart = "transient"
        shutdown = 2.5
        give_up = "park"
        backoff = {{ initial = 0.1, maximum = 5 }}
        mailbox = {{ capacity = 8, overflow = "drop_oldest" }}
        args = {{ interval = 30, sizes = [1, 2] }}
    """)
    (plan,) = config.children
    actor = plan.make_actor()
    assert isinstance(actor, Shop)
    assert actor.shop == ShopSettings(20, 3.0, True, "fast", Color.DARK_GREEN, ("a", "b"), Window(8), None)
    assert config.section(ShopSettings) is actor.shop
    assert (actor.interval, actor.sizes) == (30.0, [1, 2])
    assert isinstance(actor.interval, float)
    assert plan.table.restart is Restart.TRANSIENT
    assert plan.table.give_up is GiveUp.PARK
    assert plan.table.backoff == Backoff(initial=0.1, maximum=5.0)
    assert plan.table.mailbox.overflow is Overflow.DROP_OLDEST


def test_an_empty_file_is_a_configuration_of_defaults() -> None:
    config = load_text("")
    assert config.children == ()
    assert config.supervisor == Config().supervisor
    assert config.section(ShopSettings) == ShopSettings()


# S-1104
def test_for_each_makes_a_child_per_entry_and_needs_of_the_template_mean_all() -> None:
    config = load_text(f"""
        [actor.all]
        actor = "{HERE}:AllNodes"
        needs = ["node"]
        [actor.node]
        actor = "{HERE}:Node"
        for_each = "nodes"
        [nodes.oslo]
        url = "http://oslo"
        [nodes.paris]
        url = "http://paris"
    """)
    assert [plan.name for plan in config.children] == ["node.oslo", "node.paris", "all"]
    oslo = config.children[0].make_actor()
    assert isinstance(oslo, Node)
    assert (oslo.key, oslo.node.url) == ("oslo", "http://oslo")
    assert config.children[2].needs == ("node.oslo", "node.paris")
    assert list(config.keyed(NodeSettings)) == ["oslo", "paris"]


def test_keys_that_hold_of_all_entries_stand_beside_them_or_in_the_environment() -> None:
    text = f"""
        [actor.node]
        actor = "{HERE}:Node"
        for_each = "nodes"
        [nodes]
        required = 2
        [nodes.oslo]
        url = "http://oslo"
    """
    given: Literal["any", "all"] | int
    for given, env in ((2, {}), ("all", {"ATLAS__NODES__REQUIRED": "all"}), (1, {"ATLAS__NODES__REQUIRED": "1"})):
        config = load_text(text, env)
        assert list(config.keyed(NodeSettings)) == ["oslo"]
        oslo = config.children[0].make_actor()
        assert isinstance(oslo, Node)
        assert oslo.nodes == config.section(AllNodesSettings) == AllNodesSettings(given)
    assert errors(text.replace("= 2", "= 'some'")) == [
        'supervisor.toml:6: nodes.required: expected one of "any", "all" or an integer, got a string ("some")'
    ]
    assert errors(text.replace("required", "require")) == [
        'supervisor.toml:6: nodes.require: expected a table; did you mean "required"?'
    ]


def test_children_start_after_what_they_need_and_otherwise_in_the_order_of_the_file() -> None:
    names = {"d": ["c"], "a": [], "c": ["b"], "b": []}
    text = "".join(f'[actor.{name}]\nactor = "{HERE}:Plain"\nneeds = {needs}\n' for name, needs in names.items())
    assert [plan.name for plan in load_text(text).children] == ["b", "c", "d", "a"]


# S-1101
def test_every_error_is_reported_at_once_with_file_line_key_and_legal_values() -> None:
    text = f"""\
[supervisor]
strategy = "one_for_al"
intensty = 3
period = -1

[shop]
size = 0
wait = "long"
open = "yes"
mode = "quick"
color = "blue"
window = {{ begin = 1, end = 30 }}
tags = "a"
extra = 1

[actor.shop]
actor = "{HERE}:Shop"
restart = "sometimes"
args = {{ interval = 0.5, sizes = [1, "x"], intervall = 3 }}

[actor.other]
actor = "{HERE}:Shp"
needs = ["shp"]

[shp]
a = 1
"""
    assert errors(text) == [
        'supervisor.toml:2: supervisor.strategy: expected one of "one_for_one", "one_for_all", "rest_for_one", '
        'got a string ("one_for_al"); did you mean "one_for_all"?',
        'supervisor.toml:3: supervisor.intensty: unknown key; did you mean "intensity"?',
        "supervisor.toml:4: supervisor.period: must be > 0, got -1.0",
        "supervisor.toml:7: shop.size: must be >= 1, got 0",
        'supervisor.toml:8: shop.wait: expected a number, got a string ("long")',
        'supervisor.toml:9: shop.open: expected true or false, got a string ("yes")',
        'supervisor.toml:10: shop.mode: expected one of "fast", "safe", got a string ("quick")',
        'supervisor.toml:11: shop.color: expected one of "red", "dark_green", got a string ("blue")',
        "supervisor.toml:12: shop.window.end: must be <= 24, got 30",
        'supervisor.toml:13: shop.tags: expected a list of strings, got a string ("a")',
        "supervisor.toml:14: shop.extra: unknown key; known: color, data, mode, open, password, size, tags, wait, window",
        'supervisor.toml:18: actor.shop.restart: expected one of "permanent", "transient", "temporary", '
        'got a string ("sometimes")',
        "supervisor.toml:19: actor.shop.args.interval: must be >= 1, got 0.5",
        'supervisor.toml:19: actor.shop.args.intervall: unknown key; did you mean "interval"?',
        'supervisor.toml:19: actor.shop.args.sizes[1]: expected an integer, got a string ("x")',
        f'supervisor.toml:22: actor.other.actor: module {HERE} has no "Shp"; did you mean "Shop"?',
        'supervisor.toml:23: actor.other.needs[0]: there is no actor "shp"; did you mean "shop"?',
        'supervisor.toml:25: shp: unknown table: no actor declared here takes it; did you mean "shop"?',
    ]


# S-1102 S-1107
def test_the_text_of_each_error(subtests: pytest.Subtests) -> None:
    node = f'[actor.node]\nactor = "{HERE}:Node"\n'
    cases = {
        "pool = 1\n": ["supervisor.toml:1: pool: unknown table: no actor declared here takes it; known: "],
        "[x\n": ["supervisor.toml:1: is not valid TOML: "],
        "a = 1\na = 2\n": ["supervisor.toml:2: is not valid TOML: Cannot overwrite a value"],
        "[actor.a]\n[actor.a]\n": ["supervisor.toml:2: is not valid TOML: Cannot declare"],
        "a = [\n\n": ["supervisor.toml:3: is not valid TOML: "],
        "[actor]\nx = 1\n": ["supervisor.toml:2: actor.x: expected a table"],
        "actor = 1\n": ["supervisor.toml:1: actor: expected a table"],
        "[actor.a]\nargs = 1\n": [
            'supervisor.toml:1: actor.a: missing key "actor": a string',
            "supervisor.toml:2: actor.a.args: expected a table of",
        ],
        '[actor."a b"]\n': ['supervisor.toml:1: actor."a b": a name has letters, digits'],
        '[actor.a]\nactor = "nothing"\n': ['supervisor.toml:2: actor.a.actor: expected "package.module:Class"'],
        '[actor.a]\nactor = "runtime.core.actr:Actor"\n': [
            'supervisor.toml:2: actor.a.actor: there is no module "runtime.core.actr"; did you mean "actor"?'
        ],
        '[actor.a]\nactor = "nowhere.at.all:X"\n': ['supervisor.toml:2: actor.a.actor: there is no module "nowhere"'],
        f'[actor.a]\nactor = "{HERE}:Plan"\n': [
            f'supervisor.toml:2: actor.a.actor: module {HERE} has no "Plan"; did you mean "Plain"?'
        ],
        f'[actor.a]\nactor = "{HERE}:NoActor"\n': [
            f"supervisor.toml:2: actor.a.actor: {HERE}:NoActor is not an actor: it must be a subclass of"
        ],
        f'[actor.a]\nactor = "{HERE}:Plain"\nneeds = ["b"]\n': [
            'supervisor.toml:3: actor.a.needs[0]: there is no actor "b"'
        ],
        f'[actor.a]\nactor = "{HERE}:Plain"\nneeds = ["b"]\n[actor.b]\nactor = "{HERE}:Plain"\nneeds = ["a"]\n': [
            "supervisor.toml:3: actor.a.needs: these need each other in a circle: a → b → a"
        ],
        f'[actor.a]\nactor = "{HERE}:Plain"\nneeds = ["a"]\n': [
            "supervisor.toml:3: actor.a.needs: these need each other in a circle: a → a"
        ],
        f'[actor.a]\nactor = "{HERE}:Login"\nargs = {{ token = "abc" }}\n': [
            'supervisor.toml:3: actor.a.args: missing key "user": a string',
            'supervisor.toml:3: actor.a.args.token: is a secret and never written in this file: use token_file = "path"',
        ],
        f'[actor.a]\nactor = "{HERE}:Picky"\nargs = {{ low = 3 }}\n': [
            "supervisor.toml:3: actor.a.args: low (3) is above high (0)"
        ],
        f'[actor.a]\nactor = "{HERE}:Plain"\nargs = {{ needed = true }}\n': [
            "supervisor.toml:3: actor.a.args.needed: expected an integer, got true"
        ],
        f'[actor.a]\nactor = "{HERE}:Plain"\nargs = {{ needed = 1.5 }}\n': [
            "supervisor.toml:3: actor.a.args.needed: expected an integer, got a number (1.5)"
        ],
        f'[actor.a]\nactor = "{HERE}:Plain"\nshutdown = inf\n': [
            "supervisor.toml:3: actor.a.shutdown: expected a number, got a number (inf)"
        ],
        f'[actor.a]\nactor = "{HERE}:Plain"\nbackoff = {{ jitter = 2 }}\n': [
            "supervisor.toml:3: actor.a.backoff: backoff jitter is a share between 0 and 1, got 2.0"
        ],
        node: ['supervisor.toml:1: actor.node: takes one entry of [nodes]: add for_each = "nodes"'],
        f'{node}for_each = "node"\n[nodes.a]\nurl = "x"\n': [
            'supervisor.toml:3: actor.node.for_each: "node" is not a section with one entry per key that an actor takes; '
            'did you mean "nodes"?'
        ],
        f'{node}for_each = "nodes"\n[nodes.a]\nurl = 1\n[nodes.b]\nweight = 1\n[nodes]\nc = 3\n': [
            'supervisor.toml:5: nodes.a.url: expected a string, got an integer (1)',
            'supervisor.toml:6: nodes.b: missing key "url": a string',
            'supervisor.toml:9: nodes.c: expected a table',
        ],
        f'{node}for_each = "nodes"\n[nodes.a]\nurl = "x"\n[actor."node.a"]\nactor = "{HERE}:Plain"\n': [
            'supervisor.toml:6: actor."node.a": there is already a child "node.a", from supervisor.toml:1'
        ],
    }  # fmt: skip
    for text, wanted in cases.items():
        with subtests.test(text):
            found = errors(text)
            assert len(found) == len(wanted), found
            for message, start in zip(found, wanted, strict=True):
                assert message.startswith(start)


def test_an_unreadable_or_binary_file_is_a_configuration_error(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigErrors, match=r"none\.toml: cannot be read: No such file or directory"):
        load(missing, {})
    with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
        load(tmp_path, {})
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigErrors, match=r"binary\.toml:2: is not UTF-8 text"):
        load(binary, {})


# S-1109
def test_what_is_needed_to_reach_a_system_loads_beside_errors_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "supervisor.toml"
    file.write_text('[supervisor]\nname = "one"\n[control]\nsocket = "/tmp/s"\n[nonsense]\n[actor.a]\nactor = 3\n')
    config = load_control(file, {})
    assert config.supervisor.name == "one"
    assert config.control.socket == Path("/tmp/s")
    file.write_text("[control]\nsocket = 3\n")
    with pytest.raises(ConfigErrors, match=r"supervisor\.toml:2: control\.socket: expected a path"):
        load_control(file, {})


# S-1109
def test_sections_that_a_command_names_load_beside_errors_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "supervisor.toml"
    file.write_text('[shop]\nsize = 3\n[nonsense]\n[actor.a]\nactor = "no.such.module:Class"\n')
    config = load_sections(file, ShopSettings, env={"ATLAS__SHOP__WAIT": "2", "ATLAS__SUPERVISOR__NAME": "two"})
    assert (config.section(ShopSettings).size, config.section(ShopSettings).wait) == (3, 2.0)
    file.write_text(f'[shop]\nsize = "x"\n[nonsense]\n[actor.a]\nactor = "{HERE}:Shop"\n')
    with pytest.raises(ConfigErrors, match=r"supervisor\.toml:2: shop\.size: expected an integer"):
        load_sections(file, ShopSettings, env={})


# S-1109
@pytest.mark.parametrize(
    ("text", "env", "error"),
    [
        ("[shopp]\n", {}, r'supervisor\.toml:1: shopp: unknown table.*"shop"'),
        ("[shop]\n", {"ATLAS__PARLOUR__NAME": "x"}, r"ATLAS__PARLOUR__NAME: parlour: unknown table"),
        ("[shop]\n", {"ATLAS__SHOP": "x"}, r"ATLAS__SHOP.*names a table and a key"),
    ],
    ids=["a table of nearly that name", "a table of the environment's own", "a variable that sets nothing"],
)
def test_what_may_have_been_meant_for_a_section_that_a_command_names_is_an_error(
    tmp_path: Path, text: str, env: dict[str, str], error: str
) -> None:
    file = tmp_path / "supervisor.toml"
    file.write_text(f'{text}[actor.a]\nactor = "{HERE}:Shop"\n')
    with pytest.raises(ConfigErrors, match=error):
        load_sections(file, ShopSettings, env=env)


def test_a_section_that_no_actor_takes_is_read_when_asked_for() -> None:
    config = load_text(f'[actor.a]\nactor = "{HERE}:Plain"\n')
    assert config.section(ShopSettings).password == Secret()
    assert config.children[0].actor is Plain
    with pytest.raises(TypeError, match="decorate it with @settings"):
        config.section(Window)
