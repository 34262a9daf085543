"""The SQL that claimed tables share, word by word, and what it does to a row."""

from __future__ import annotations

import pytest

from db.tx import Tx
from db.work.claims import claimable, claimed, released, revoked, unclaimed
from tests.db.database import Database


def test_the_words_of_the_shared_sql() -> None:
    assert unclaimed("$9", of="o.") == "o.claim_until IS NULL OR o.claim_until <= $9"
    assert claimable() == (
        "(claim_until IS NULL OR claim_until <= (SELECT atlas_now()) OR (claimed_by = $1 AND claimed_incarnation < $2))"
    )
    assert claimable("(SELECT at FROM now)", of="k.") == (
        "(k.claim_until IS NULL OR k.claim_until <= (SELECT at FROM now)"
        " OR (k.claimed_by = $1 AND k.claimed_incarnation < $2))"
    )
    assert claimed("atlas_now() + $5::interval", of="i.") == (
        "claimed_by = $1, claimed_incarnation = $2, claim_epoch = i.claim_epoch + 1, "
        "claim_until = atlas_now() + $5::interval"
    )
    assert released() == "claimed_by = NULL, claimed_incarnation = NULL, claim_until = NULL"
    assert released(of="k.", unless="NOT p.done") == (
        "claimed_by = CASE WHEN NOT p.done THEN k.claimed_by END, "
        "claimed_incarnation = CASE WHEN NOT p.done THEN k.claimed_incarnation END, "
        "claim_until = CASE WHEN NOT p.done THEN k.claim_until END"
    )
    assert revoked(of="r.") == f"claim_epoch = r.claim_epoch + 1, {released()}"


COLUMNS = "coalesce(claimed_by, '') || '#' || coalesce(claimed_incarnation, 0) || ' epoch ' || claim_epoch"


@pytest.mark.parametrize(
    ("claimer", "incarnation", "seconds", "is_free"),
    [
        ("other", 9, 30, False),
        ("other", 1, 61, True),
        ("main/a", 3, 30, False),
        ("main/a", 4, 30, True),
        ("main/a", 2, 30, False),
    ],
    ids=["of another", "time is up", "own", "of an earlier incarnation", "of a later incarnation"],
)
async def test_a_claimed_row_is_free_for_the_next_incarnation_and_for_all_when_its_time_is_up(
    database: Database, claimer: str, incarnation: int, seconds: int, is_free: bool
) -> None:
    async def claim(tx: Tx) -> bool:
        await tx.execute(
            "CREATE TEMPORARY TABLE work (claimed_by text, claimed_incarnation bigint, claim_until timestamptz, "
            "claim_epoch bigint NOT NULL DEFAULT 0); INSERT INTO work DEFAULT VALUES"
        )
        assert await tx.fetchval(f"SELECT {claimable()} FROM work", claimer, incarnation)
        until = "atlas_now() + interval '60 seconds'"
        await tx.execute(f"UPDATE work SET {claimed(until)}", "main/a", 3)
        assert await tx.fetchval(f"SELECT {COLUMNS} FROM work") == "main/a#3 epoch 1"
        now = f"(atlas_now() + interval '{seconds} seconds')"
        free: bool = await tx.fetchval(f"SELECT {claimable(now)} FROM work", claimer, incarnation)
        return free

    assert await database.run(claim) == is_free


async def test_released_keeps_the_epoch_and_revoked_fences_the_holder(database: Database) -> None:
    async def look(tx: Tx) -> list[str]:
        await tx.execute(
            "CREATE TEMPORARY TABLE work AS SELECT 'a' AS claimed_by, 1 AS claimed_incarnation, atlas_now() AS claim_until, "
            "5 AS claim_epoch"
        )
        seen = []
        for change in (released(unless="claim_epoch = 5"), released(), revoked()):
            await tx.execute(f"UPDATE work SET {change}")
            seen.append(await tx.fetchval(f"SELECT {COLUMNS} FROM work"))
        return seen

    assert await database.run(look) == ["a#1 epoch 5", "#0 epoch 5", "#0 epoch 6"]
