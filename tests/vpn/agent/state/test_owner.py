"""Who rules a node: the first that comes, then only who knows the last nonce, or who takes it deliberately."""

from __future__ import annotations

import json
import time
from pathlib import Path

import attrs
import pytest

from vpn.agent.state.owner import OPEN_SECONDS, NotOwner, Ownership, digest_of, disown, nonce_of
from vpn.agent.state.records import encode_line
from vpn.errors import StoreFailed


def owned(directory: Path, *, is_private: bool = True) -> Ownership:
    """A node that the database `ours` rules by the nonce `first`."""
    ownership = Ownership(directory, is_private)
    ownership.claim("ours", "", "first", take=False, code="")
    return ownership


def test_a_new_node_takes_changes_from_everybody_until_the_first_owner_comes(tmp_path: Path) -> None:
    ownership = Ownership(tmp_path, is_private=True)
    assert ownership.admits("")
    ownership.claim("ours", "", "first", take=False, code="")
    assert ownership.admits("first") and not ownership.admits("") and not ownership.admits("other")
    assert nonce_of(tmp_path) == "first"


def test_only_who_knows_the_last_nonce_gives_the_next_one(tmp_path: Path) -> None:
    ownership = owned(tmp_path)
    ownership.claim("ours", "first", "second", take=False, code="")
    ownership.claim("ours", "first", "second", take=False, code="")  # its answer was lost
    for database_id, previous in (("ours", "first"), ("ours", ""), ("theirs", "second")):
        with pytest.raises(NotOwner, match=r"atlas node own NAME --take") as refused:
            ownership.claim(database_id, previous, "third", take=False, code="")
        assert refused.value.facts["nonce_digest"] == digest_of("second")
        assert "second" not in json.dumps(refused.value.facts)
    assert ownership.admits("second") and not ownership.admits("first")


def test_the_owner_survives_a_restart(tmp_path: Path) -> None:
    owned(tmp_path)
    again = Ownership(tmp_path, is_private=True)
    assert again.owner.database_id == "ours" and again.admits("first") and not again.admits("")


def test_after_the_first_hour_a_node_takes_no_first_owner_without_a_code(tmp_path: Path) -> None:
    ownership = Ownership(tmp_path, is_private=True)
    for until in (time.time() - 1, time.time() + OPEN_SECONDS + 3600):  # the second: the clock was set back
        late = attrs.evolve(ownership.owner, open_until=until)
        (tmp_path / "owner.json").write_bytes(encode_line(attrs.asdict(late)))
        with pytest.raises(NotOwner, match="atlas node disown") as refused:
            ownership.claim("ours", "", "first", take=False, code="")
        assert refused.value.facts == {"takes_changes": True} and ownership.admits("")
    code = disown(tmp_path)
    ownership.claim("ours", "", "first", take=False, code=code)
    assert ownership.admits("first")


def test_a_disowned_node_waits_for_who_has_the_code_and_takes_it_once(tmp_path: Path) -> None:
    ownership = owned(tmp_path)
    code = disown(tmp_path)
    for given in ("", "wrong"):
        with pytest.raises(NotOwner) as refused:
            ownership.claim("ours", "first", "second", take=True, code=given)
        assert refused.value.facts == {"takes_changes": False}
    assert not ownership.admits("first") and not ownership.admits("")
    ownership.claim("theirs", "", "new", take=False, code=code)
    with pytest.raises(NotOwner):
        ownership.claim("ours", "first", "second", take=False, code=code)


@pytest.mark.parametrize("is_private", [True, False], ids=["loopback or a client certificate", "the token alone"])
def test_beyond_loopback_the_token_alone_takes_no_node_away(tmp_path: Path, *, is_private: bool) -> None:
    ownership = owned(tmp_path, is_private=is_private)
    if is_private:
        ownership.claim("theirs", "", "new", take=True, code="")
        assert ownership.admits("new") and not ownership.admits("first")
        return
    with pytest.raises(NotOwner, match=r"tls\.client_ca"):
        ownership.claim("theirs", "", "new", take=True, code="")
    assert ownership.admits("first")
    ownership.claim("theirs", "", "new", take=False, code=disown(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"rubbish\n", encode_line({"nonce": "x"})], ids=["empty", "rubbish", "fields missing"]
)
def test_a_damaged_file_lets_nobody_in_until_it_is_taken_or_disowned(tmp_path: Path, content: bytes) -> None:
    owned(tmp_path)
    (tmp_path / "owner.json").write_bytes(content)
    ownership = Ownership(tmp_path, is_private=True)
    assert not ownership.admits("first") and not ownership.admits("")
    with pytest.raises(NotOwner):
        ownership.claim("ours", "first", "second", take=False, code="")
    ownership.claim("ours", "", "second", take=True, code="")
    assert Ownership(tmp_path, is_private=True).admits("second")


def test_a_claim_that_cannot_be_written_down_is_not_taken(tmp_path: Path) -> None:
    ownership = owned(tmp_path)
    (tmp_path / "owner.json.new").mkdir()  # in the way
    with pytest.raises(StoreFailed, match="free space"):
        ownership.claim("ours", "first", "second", take=False, code="")
    assert ownership.admits("first") and not ownership.admits("second")
