"""Every key of a TOML text is found at its line, whatever stands around it."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.config.key_lines import key_lines


def test_tables_keys_and_quoted_names_have_their_lines() -> None:
    lines = key_lines('# top\n[pool]\nsize = 10\n\n[actor."pool.main"]\nactor = "a:B"\nargs = { x = 1, y = "z" }\n')
    assert lines[("pool",)] == 2
    assert lines[("pool", "size")] == 3
    assert lines[("actor",)] == 5
    assert lines[("actor", "pool.main")] == 5
    assert lines[("actor", "pool.main", "actor")] == 6
    assert lines[("actor", "pool.main", "args", "y")] == 7


def test_brackets_hashes_and_equals_signs_inside_strings_are_not_syntax() -> None:
    text = 'a = "[x] # = }"\nb = \'\'\'\n[no]\nc = 1\n\'\'\'\nd = [\n  "]", # comment ]\n  { e = 2 },\n]\nf = """q"""""\ng = 1\n'
    tomllib.loads(text)
    assert dict(key_lines(text)) == {
        ("a",): 1,
        ("b",): 2,
        ("d",): 6,
        ("d", 0): 7,
        ("d", 1): 8,
        ("d", 1, "e"): 8,
        ("f",): 10,
        ("g",): 11,
    }


def test_a_dotted_key_notes_the_tables_that_it_makes() -> None:
    lines = key_lines('[a]\n\nb . "c.d" = 1\n')
    assert lines[("a", "b")] == 3
    assert lines[("a", "b", "c.d")] == 3


def test_an_array_of_tables_is_numbered_and_its_subtables_belong_to_the_last_element() -> None:
    lines = key_lines("[[n]]\nx = 1\n[[n]]\nx = 2\n[n.sub]\ny = 3\n")
    assert lines[("n", 0, "x")] == 2
    assert lines[("n", 1, "x")] == 4
    assert lines[("n", 1, "sub", "y")] == 6


_keys = st.text(alphabet="ab\"'\\#=. [é", min_size=1, max_size=4)
_leaves = st.one_of(st.integers(), st.booleans(), st.text(alphabet="ab\"'\\#=.\n[]{},", max_size=8))
_values = st.recursive(
    _leaves,
    lambda children: st.one_of(st.lists(children, max_size=3), st.dictionaries(_keys, children, max_size=3)),
    max_leaves=8,
)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, list):
        return "[ # ]\n" + ",\n".join(_inline(item) for item in value) + "\n]"
    return "{" + ", ".join(f"{_quote(key)} = {_inline(item)}" for key, item in value.items()) + "}"


def _paths(value: Any, path: tuple[str | int, ...]) -> set[tuple[str | int, ...]]:
    found: set[tuple[str | int, ...]] = set()
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found |= {(*path, key)} | _paths(child, (*path, key))
    return found


@given(st.dictionaries(_keys, _values, max_size=4))
def test_every_path_that_tomllib_reads_is_found_and_no_other(data: dict[str, Any]) -> None:
    text = "".join(f"{_quote(key)} = {_inline(value)}\n" for key, value in data.items())
    assert tomllib.loads(text) == data
    assert set(key_lines(text)) == _paths(data, ())


@given(st.text(max_size=60))
def test_a_scan_of_any_text_ends(text: str) -> None:
    key_lines(text)
