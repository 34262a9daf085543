"""Each broken link and each path that leads nowhere is found, and the honest ones are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_links import anchors, violations

INDEX = "[one](docs/one.md)\n"


def check(root: Path, **files: str) -> list[str]:
    """Files by their path, with `__` for each slash and `_dot_` for each point."""
    written = {name.replace("__", "/").replace("_dot_", "."): text for name, text in files.items()}
    for path, text in written.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return list(violations(root, sorted(written)))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[x](two.md)", "docs/one.md:1: two.md leads to no file"),
        ("![x](../tree.svg)", "docs/one.md:1: ../tree.svg leads to no file"),
        ("[x](../../outside.md)", "docs/one.md:1: ../../outside.md leads to no file"),
        ('[x](two.md "a title")', "docs/one.md:1: two.md leads to no file"),
        ("[`code` and [more]](two.md)", "docs/one.md:1: two.md leads to no file"),
        ("[x](#nothing)", "docs/one.md:1: docs/one.md has no heading for #nothing"),
        ("[x](../README.md#nothing)", "docs/one.md:1: README.md has no heading for #nothing"),
        ("see `runtime/gone.py`", "docs/one.md:1: there is no runtime/gone.py"),
        ("see `docs/gone.md`", "docs/one.md:1: there is no docs/gone.md"),
    ],
)
def test_a_link_or_a_path_that_leads_nowhere_is_found(tmp_path: Path, link: str, expected: str) -> None:
    assert check(tmp_path, README_dot_md=INDEX, docs__one_dot_md=link + "\n") == [expected]


@pytest.mark.parametrize(
    "link",
    [
        "[x](../README.md)",
        "[x](..)",
        "[x](/README.md)",
        "[x](https://example.org/gone.md)",
        "[x](mailto:someone@example.org)",
        "`[x](gone.md)` shows how a link looks",
        "```\n[x](gone.md)\n```",
        "# A title, twice\n\n## A title, twice\n\n[x](#a-title-twice-1)",
        "see `/srv/atlas/runtime/gone.py`, or vpn/",
    ],
)
def test_what_leads_somewhere_or_is_no_link_is_left_alone(tmp_path: Path, link: str) -> None:
    assert check(tmp_path, README_dot_md=INDEX, docs__one_dot_md=link + "\n") == []


def test_a_page_to_which_only_itself_links_is_found(tmp_path: Path) -> None:
    found = check(tmp_path, README_dot_md="", docs__one_dot_md="# One\n\n[x](one.md)\n")
    assert found == ["docs/one.md:1: no other page links to this one"]


def test_a_page_that_a_program_names_must_be_there(tmp_path: Path) -> None:
    named = check(
        tmp_path, README_dot_md=INDEX, docs__one_dot_md="", vpn__x_dot_py='"""See docs/one.md, docs/two.md."""\n'
    )
    assert named == ["vpn/x.py:1: there is no docs/two.md"]


def test_a_decision_may_name_what_is_gone_and_a_test_of_a_tool_what_never_was(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        README_dot_md=INDEX + "[two](docs/adr/0001-x.md)\n",
        docs__one_dot_md="",
        **{"docs__adr__0001-x_dot_md": "`runtime/gone.py` was joined\n"},
        tests__tools__test_x_dot_py='"docs/gone.md"\n',
    )
    assert found == []


def test_anchors_are_made_as_github_makes_them() -> None:
    assert anchors("# What `a_b` is: *it*, 2 × 3\n## [Linked](x.md)\n```\n# no heading\n```\n") == {
        "what-a_b-is-it-2--3",
        "linked",
    }
