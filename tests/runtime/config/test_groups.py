"""`[group.<name>]`: who belongs to which, in which order all start, and what is wrong where."""

from __future__ import annotations

import pytest

from runtime.child import Restart, Strategy
from runtime.cli.check import examine
from runtime.config.errors import ConfigErrors
from runtime.config.loader import load_text

HERE = "tests.runtime.config.actors_for_config"
LINE = """
[group.line]
strategy = "rest_for_one"
intensity = 3
period = 30
[group.inner]
parent = "line"
restart = "transient"
"""


def actor(name: str, more: str = "") -> str:
    return f'[actor.{name}]\nactor = "{HERE}:Plain"\n{more}\n'


def errors(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load_text(text, env)
    return [str(problem) for problem in caught.value.problems]


# S-1110
def test_groups_nest_and_stand_where_their_first_actor_does() -> None:
    text = LINE + actor("a") + actor("b", 'group = "line"') + actor("c") + actor("d", 'group = "inner"')
    config = load_text(text + actor("e", 'group = "line"'))
    assert [plan.name for plan in config.children] == ["a", "b", "d", "e", "c"]
    assert [plan.name for plan in config.below(None)] == ["a", "line", "c"]
    assert [plan.name for plan in config.below("line")] == ["b", "inner", "e"]
    assert [plan.name for plan in config.below("inner")] == ["d"]
    line, inner = config.groups
    assert (line.table.strategy, line.table.intensity, line.table.period) == (Strategy.REST_FOR_ONE, 3, 30.0)
    assert (inner.parent, inner.table.restart) == ("line", Restart.TRANSIENT)


# S-1111
def test_a_need_across_borders_is_one_of_the_siblings_that_contain_both_sides() -> None:
    text = LINE + actor("a", 'needs = ["d"]') + actor("b", 'group = "line"\nneeds = ["z"]')
    text += actor("d", 'group = "inner"\nneeds = ["b"]') + actor("z")
    config = load_text(text)
    assert [plan.name for plan in config.children] == ["z", "b", "d", "a"]
    waits = {plan.name: plan.waits_for for plan in config.children}
    waits |= {group.name: group.waits_for for group in config.groups}
    assert waits == {"a": ("line",), "b": (), "d": (), "z": (), "line": ("z",), "inner": ("b",)}
    assert {plan.name: plan.needs for plan in config.children}["a"] == ("d",), "as it is written"


# S-1111
def test_a_circle_that_only_groups_make_is_refused_with_its_path() -> None:
    text = (
        LINE + actor("x", 'needs = ["b"]') + actor("a", 'group = "line"\nneeds = ["x"]') + actor("b", 'group = "line"')
    )
    assert errors(text) == [
        "supervisor.toml:11: actor.x.needs: these need each other in a circle: x → line → x; leave one of these needs out; "
        "a group starts and stops as one"
    ]


def test_a_whole_group_can_be_needed_and_can_need() -> None:
    text = '[group.line]\nneeds = ["z"]\n' + actor("a", 'needs = ["line"]') + actor("b", 'group = "line"') + actor("z")
    assert [plan.name for plan in load_text(text).children] == ["z", "b", "a"]
    inside = LINE + actor("b", 'group = "line"\nneeds = ["line"]')
    assert errors(inside) == [
        'supervisor.toml:12: actor.b.needs: "line" and b contain each other: neither could start first'
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (LINE + actor("a", 'group = "lime"'), ':11: actor.a.group: there is no group "lime"; did you mean "line"?'),
        (actor("a", 'group = "x"'), ':3: actor.a.group: there is no group "x"; declare it as [group.<name>]'),
        (
            '[group.a]\nparent = "lines"\n[group.line]\n',
            ':2: group.a.parent: there is no group "lines"; did you mean "line"?',
        ),
        ("[group.a]\nstrategi = 1\n", ':2: group.a.strategi: unknown key; did you mean "strategy"?'),
        (
            '[group.a]\nstrategy = "one"\n',
            ':2: group.a.strategy: expected one of "one_for_one", "one_for_all", "rest_for_one"',
        ),
        (
            '[group.a]\nparent = "b"\n[group.b]\nparent = "a"\n',
            ":2: group.a.parent: these groups contain each other: a → b → a",
        ),
        ("[group.a]\n" + actor("a"), ':2: actor.a: there is already a group "a", from supervisor.toml:1'),
        ("group = 3\n", ":1: group: expected a table"),
        ("[group]\na = 3\n", ":2: group.a: expected a table"),
        ("[group.a]\nintensity = -1\n", ":2: group.a.intensity: must be >= 0, got -1"),
        ("[group.a]\nsignificant = true\n", ":1: group.a: child 'a' is significant and permanent"),
        ('[group.a]\nneeds = ["b"]\n', ':2: group.a.needs[0]: there is no actor "b"; known: a'),
        (
            '[group.a]\nstrategy = "one_for_all"\n' + actor("x", 'group = "a"\ngive_up = "park"'),
            ':3: actor.x: x has give_up = "park" under strategy one_for_all',
        ),
        (
            "[group.a]\nintensity = 9\nperiod = 1\n" + actor("x", 'group = "a"'),
            ":4: actor.x: x would be restarted for ever",
        ),
    ],
)
def test_an_error_names_its_line_its_key_and_the_nearest_name(text: str, wanted: str) -> None:
    assert errors(text)[0].startswith(f"supervisor.toml{wanted}")


# S-1110
def test_the_environment_reaches_groups() -> None:
    config = load_text(LINE, {"ATLAS__GROUP__LINE__INTENSITY": "4"})
    assert config.groups[0].table.intensity == 4


# S-1112
def test_check_computes_with_the_limits_of_the_group() -> None:
    report = examine(load_text(LINE + actor("b", 'group = "line"') + actor("c", 'group = "line"\nshutdown = 2.0')))
    children, groups = report["children"], report["groups"]
    assert isinstance(children, list)
    assert isinstance(groups, list)
    assert [(child["name"], child["group"], child["time_to_give_up"]) for child in children] == [
        ("b", "line", 1.5),
        ("c", "line", 1.5),
    ]
    assert (groups[0]["children"], groups[0]["worst_case_stop"]) == (["b", "c", "inner"], 9.0)
    assert report["worst_case_stop"] == 9.0
