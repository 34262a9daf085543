"""The token file of a node's agent: what is refused, and that no message repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpn.errors import AgentMisconfigured
from vpn.token_file import read_token


@pytest.mark.parametrize(
    "token", [b"short", b"", b"with spaces in its middle", b"\xff" * 20, "ключ-из-букв-кириллицы".encode()]
)
def test_a_weak_or_unusable_token_is_refused_and_not_repeated(tmp_path: Path, token: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(token)
    with pytest.raises(AgentMisconfigured) as caught:
        read_token(path)
    assert str(path) in str(caught.value)
    assert not token or token.decode(errors="replace") not in str(caught.value)


def test_a_token_is_taken_without_the_newline_of_its_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sixteen-or-more-characters\n")
    token = read_token(tmp_path / "token")
    assert token.reveal() == "sixteen-or-more-characters"
    assert "sixteen" not in repr(token)


def test_a_directory_in_place_of_the_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AgentMisconfigured, match="cannot read the token file"):
        read_token(tmp_path)
