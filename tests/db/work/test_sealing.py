"""Where money is paid out to lies sealed, opens for its own withdrawal alone, and what lay in clear is sealed in pages."""

import json

import pytest
import trio

from db.billing.withdrawals import (
    Withdrawal,
    approve_withdrawal,
    find_withdrawal,
    list_withdrawals,
    open_destination,
    request_withdrawal,
    seal_destinations,
)
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from db.work.sealing import Seal, SealedText, SealError, fingerprint, new_key_text, read_seal
from tests.db.database import SEAL, Database

CARD = "4111 1111 1111 1234"
OTHER = read_seal(new_key_text(), "another file")


async def request(database: Database, key: str = "w", destination: str = CARD, seal: Seal = SEAL) -> Withdrawal:
    return await database.run(
        request_withdrawal,
        1001,
        Money(60_000),
        destination=destination,
        idempotency_key=key,
        actor="front_end:test",
        seal=seal,
    )


async def funded(database: Database) -> None:
    await database.add_customer()
    await database.earn(1001, 1_000_000)


async def everything(database: Database) -> str:
    """The text of every row of every table, as somebody with a dump reads it."""
    names = await database.fetchval(
        "SELECT json_agg(quote_ident(tablename))::text FROM pg_tables WHERE schemaname = 'public'"
    )
    found = ""
    for name in json.loads(names):
        found += await database.fetchval(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {name} t")
    return found


async def in_clear(database: Database, count: int = 1, state: str = "reserved") -> None:
    """Withdrawals as they were stored before: past the triggers, with the text in `requisites`."""
    for number in range(count):
        found = await request(database, f"old-{number}", f"card of old {number:04}")
        if state == "paid":
            await database.run(approve_withdrawal, found.id, actor="operator:t", reference="bank", second_above=None)
    async with database.connect() as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            """
            UPDATE withdrawals SET destination_sealed = NULL, sealed_with = NULL, destination_end = NULL,
                requisites = jsonb_build_object('destination', 'card of old ' || right(destination_end, 4))
            """
        )
        await connection.execute("DELETE FROM seal_keys")


async def test_a_destination_is_in_no_row_of_any_table_and_opens_for_its_withdrawal(database: Database) -> None:
    await funded(database)
    found = await request(database)
    assert CARD not in await everything(database)
    assert "4111" not in await everything(database)
    assert await database.run(open_destination, found.id, SEAL, actor="operator:anna") == CARD
    entry = await database.fetchval("SELECT actor || ' ' || subject FROM audit WHERE action = 'destination_opened'")
    assert entry == f"operator:anna withdrawal:{found.id}"


async def test_the_same_destination_is_sealed_differently_each_time(database: Database) -> None:
    await funded(database)
    await request(database, "a")
    await request(database, "b")
    assert await database.fetchval("SELECT count(DISTINCT destination_sealed) FROM withdrawals") == 2


async def test_a_seal_that_was_moved_or_altered_does_not_open(database: Database) -> None:
    await funded(database)
    first, second = await request(database, "a"), await request(database, "b", "5500 0000 0000 9999")
    async with database.connect() as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            """
            UPDATE withdrawals w SET destination_sealed = o.destination_sealed FROM withdrawals o
            WHERE w.id = $1 AND o.id = $2
            """,
            first.id,
            second.id,
        )
        await connection.execute(
            "UPDATE withdrawals SET destination_sealed = set_byte(destination_sealed, 20, 0) WHERE id = $1", second.id
        )
    for number in (first.id, second.id):
        with pytest.raises(SealError, match="it was altered, or moved here from another one") as refused:
            await database.run(open_destination, number, SEAL, actor="operator:anna")
        assert "9999" not in str(refused.value)
    assert await database.fetchval("SELECT count(*) FROM audit WHERE action = 'destination_opened'") == 0


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(12), bytes(40)])
def test_no_bytes_open_but_those_that_were_sealed(sealed: bytes) -> None:
    with pytest.raises(SealError, match="does not open"):
        SEAL.open(SealedText(sealed, SEAL.fingerprint), "withdrawal 'w' of customer 1")


async def test_another_key_file_is_noticed_before_it_seals(database: Database) -> None:
    await funded(database)
    found = await request(database)
    with pytest.raises(SealError, match=f"sealed with key {SEAL.fingerprint}, which another file does not hold") as no:
        await request(database, "second", seal=OTHER)
    assert no.value.exit_code == 78
    assert await database.count("withdrawals") == 1
    with pytest.raises(SealError, match="put the file back from the backup"):
        await database.run(open_destination, found.id, OTHER, actor="operator:anna")


async def test_a_rotated_key_seals_and_the_old_one_still_opens(database: Database) -> None:
    await funded(database)
    old = await request(database, "a")
    rotated = Seal((*OTHER.keys, *SEAL.keys), "the rotated file")
    new = await request(database, "b", seal=rotated)
    assert await database.run(open_destination, old.id, rotated, actor="o") == CARD
    assert await database.run(open_destination, new.id, rotated, actor="o") == CARD
    assert await database.fetchval("SELECT sealed_with FROM withdrawals WHERE id = $1", new.id) == OTHER.fingerprint
    with pytest.raises(SealError, match="which the tests' key file does not hold"):
        await request(database, "c", seal=Seal(OTHER.keys, SEAL.where))


async def test_a_repeated_request_is_compared_with_what_is_sealed(database: Database) -> None:
    await funded(database)
    first = await request(database)
    assert (await request(database)).id == first.id
    with pytest.raises(BusinessError, match=r"already stands for withdrawal 1 of 600\.00 RUB to …1234") as refused:
        await request(database, destination="4111 1111 1111 9999")
    assert "9999" not in str(refused.value)


@pytest.mark.parametrize("state", ["reserved", "paid"])
async def test_what_lay_in_clear_is_sealed_in_pages_and_gone(database: Database, state: str) -> None:
    await funded(database)
    await in_clear(database, 5, state)
    assert "card of old" in await everything(database)
    assert [one.destination for one in await database.run(list_withdrawals, None)] == [f"…000{n}" for n in range(5)]
    pages = [await database.run(seal_destinations, lambda: SEAL, 2) for _ in range(4)]
    assert pages == [2, 2, 1, 0]
    assert "card of old" not in await everything(database)
    for number in range(5):
        found = (await database.run(list_withdrawals, None))[number]
        assert await database.run(open_destination, found.id, SEAL, actor="o") == f"card of old {number:04}"
        assert found.state == state


async def test_a_sealing_that_is_cut_off_goes_on_where_it_was(database: Database) -> None:
    await funded(database)
    await in_clear(database, 4)

    async def cut_off(tx: Tx) -> None:
        await seal_destinations(tx, lambda: SEAL, 3)
        raise ConnectionError("the process died")

    with pytest.raises(ConnectionError):
        await database.run(cut_off)
    assert await database.run(seal_destinations, lambda: SEAL, 1) == 1
    async with trio.open_nursery() as nursery:  # several at once do not do it twice
        for _ in range(3):
            nursery.start_soon(database.run, seal_destinations, lambda: SEAL, 3)
    while await database.run(seal_destinations, lambda: SEAL, 3):
        pass
    assert "card of old" not in await everything(database)
    assert await database.fetchval("SELECT count(*) FROM withdrawals WHERE destination_sealed IS NULL") == 0


async def test_one_that_still_lies_in_clear_can_be_read_repeated_and_settled(database: Database) -> None:
    await funded(database)
    await in_clear(database)
    found = await database.run(find_withdrawal, 1)
    assert "card of old" not in repr(found)
    assert (await request(database, "old-0", "card of old 0000")).id == 1
    assert await database.run(open_destination, 1, SEAL, actor="o") == "card of old 0000"
    paid = await database.run(approve_withdrawal, 1, actor="operator:t", reference="bank", second_above=None)
    assert paid.state == "paid"


async def test_the_key_is_not_asked_for_where_nothing_lies_in_clear(database: Database) -> None:
    def no_key() -> Seal:
        raise AssertionError

    assert await database.run(seal_destinations, no_key) == 0


async def test_the_database_refuses_a_destination_in_clear_and_any_other_change(database: Database) -> None:
    await funded(database)
    await request(database)
    insert = """
        INSERT INTO withdrawals (customer_id, idempotency_key, amount, currency, requisites, reserve_journal_id)
        SELECT customer_id, 'x', amount, currency, '{"destination": "card"}', reserve_journal_id + 1 FROM withdrawals
    """
    sealed = "SELECT destination_sealed, sealed_with, destination_end FROM withdrawals"
    async with database.connect() as connection:
        with pytest.raises(Exception, match="a payout destination is stored sealed"):
            await connection.execute(insert)
        for change in (
            "destination_sealed = '\\x00'",
            "destination_sealed = NULL, sealed_with = NULL, destination_end = NULL",
            'requisites = \'{"destination": "card"}\'',
            "destination_end = '…9999'",
        ):
            with pytest.raises(Exception, match="leaves the reserve once"):
                await connection.execute(f"UPDATE withdrawals SET {change}")
        assert await connection.fetch(sealed)
    await in_clear(database)
    async with database.connect() as connection:
        await connection.execute("INSERT INTO seal_keys VALUES ('0123456789abcdef')")
        ok = "destination_sealed = '\\x00', sealed_with = '0123456789abcdef', destination_end = '…'"
        for change in (ok, f"{ok}, requisites = '{{}}', amount = 1", f"{ok}, requisites = '{{}}', state = 'paid'"):
            with pytest.raises(Exception, match=r"leaves the reserve once|sealed_whole"):
                await connection.execute(f"UPDATE withdrawals SET {change}")


@pytest.mark.parametrize(
    "text", ["", "# nothing", "07" * 31, "07" * 33, "zz" * 32, f"{'07' * 32}\n{'07' * 32}", "07" * 32 + "\nx"]
)
def test_a_text_that_holds_no_keys_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SealError, match="a file") as refused:
        read_seal(text, "a file")
    assert "07070707" not in str(refused.value)
    assert "zz" not in str(refused.value)


def test_a_fingerprint_tells_nothing_of_its_key() -> None:
    assert fingerprint(SEAL.keys[0]) not in SEAL.keys[0].hex()
    assert SEAL.keys[0].hex() not in repr(SEAL)
    assert repr(SEAL.keys[0]) not in repr(SEAL)
