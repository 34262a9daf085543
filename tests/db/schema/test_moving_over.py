"""A database of the released program is moved to purses page by page: sums are kept, and what cannot be derived is a case."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest

from db.billing.ledger import Purses, purses
from db.billing.refunds import refund_charge
from db.billing.withdrawals import approve_withdrawal, reject_withdrawal
from db.money import Money
from db.schema.migrate import (
    InstanceWorks,
    Migration,
    MigrationError,
    apply_next,
    check_schema,
    load_migrations,
    migrate,
)
from db.schema.moving_over import move_next_page, unfinished_step
from db.work.leader_leases import acquire_epoch, renew_epoch
from tests.db.database import Connection, Database
from tests.db.schema.old_books import PRICE, OldBooks

RELEASED = load_migrations()[:16]


@attrs.frozen
class Town:
    """Customers of the old books by what they did, and what their accounts held."""

    ids: dict[str, int]
    balances: dict[str, int]
    waiting: int
    """A withdrawal that holds money that was paid in."""


async def fill(database: Database) -> Town:
    """A shop in which each kind of fact came about under the old rules."""
    async with database.connect() as connection:
        await migrate(connection, purpose="test", migrations=RELEASED)
        await connection.execute("BEGIN")
        books = OldBooks(connection)
        inviter = await books.customer(1)
        ids = {"inviter": inviter}
        for number, name in enumerate(
            (
                "saver",
                "overdrawn",
                "taker",
                "refunded",
                "renewed",
                "adjusted",
                "parked",
                "loser",
                "friend_of_loser",
                "new",
            ),
            2,
        ):
            floor = -20_000 if name == "overdrawn" else 0
            referrer = {"friend_of_loser": ids.get("loser"), "new": None}.get(name, inviter)
            ids[name] = await books.customer(number, referrer=referrer, floor=floor)
        # saver: 1 000 topped up (rewarded), 149 spent
        await books.topup(ids["saver"], 100_000)
        await books.spend(ids["saver"])
        # overdrawn: spends 149 with 50, and tops up 30 later
        await books.adjust(ids["overdrawn"], 5_000)
        await books.spend(ids["overdrawn"])
        await books.topup(ids["overdrawn"], 3_000)
        # taker: money that was paid in was withdrawn, is waiting to be, and came back
        await books.topup(ids["taker"], 200_000)
        await books.compensate(ids["taker"], 10_000)
        await books.withdraw(ids["taker"], 60_000, "paid")
        await books.withdraw(ids["taker"], 50_000, "rejected")
        waiting = await books.withdraw(ids["taker"], 70_000, "reserved")
        # refunded: half of a top-up went back, the rest was spent and lost
        charge = await books.topup(ids["refunded"], 40_000)
        await books.refund(charge, 20_000, from_account=ids["refunded"])
        await books.spend(ids["refunded"])
        await books.refund(charge, 20_000, from_account=ids["refunded"], written_off=14_900)
        # renewed: bought at a provider, and renewed from a top-up and a credit
        await books.buy(ids["renewed"])
        await books.topup(ids["renewed"], 10_000)
        await books.adjust(ids["renewed"], 10_000)
        await books.renew(ids["renewed"])
        # adjusted: an operator took off what had been paid in
        await books.topup(ids["adjusted"], 50_000)
        await books.adjust(ids["adjusted"], 2_000)
        await books.adjust(ids["adjusted"], -30_000)
        # parked: cases
        await books.credit_case(ids["parked"], 7_000, known=True)
        await books.credit_case(ids["parked"], 3_000, known=False)
        # loser: a reward was withdrawn, and then taken back from money that was paid in
        charge = await books.topup(ids["friend_of_loser"], 600_000)
        await books.withdraw(ids["loser"], 60_000, "paid")
        await books.topup(ids["loser"], 100_000)
        await books.refund(charge, 600_000, from_account=ids["friend_of_loser"])
        await books.place_keys()
        await connection.execute("COMMIT")
        assert await broken(connection) == []
        balances = {name: await books.balance(number) for name, number in ids.items()}
    return Town(ids, balances, waiting)


async def broken(connection: Connection) -> list[str]:
    """What the money views of this schema list, those that hold only at rest included."""
    views = await connection.fetch("SELECT viewname FROM pg_views WHERE viewname LIKE 'money\\_%' ORDER BY viewname")
    found = []
    for view in views:
        rows = await connection.fetch(f"SELECT subject, problem FROM {view['viewname']}")
        found += [f"{view['viewname']}: {row['subject']} {row['problem']}" for row in rows]
    return found


async def apply_files(database: Database) -> None:
    """The files after the released ones, without moving anything."""
    async with database.connect() as connection:
        applied: Migration | None = RELEASED[-1]
        while applied is not None:
            await connection.execute("BEGIN")
            applied = await apply_next(connection, purpose=None, wait=5.0)
            await connection.execute("COMMIT")


@asynccontextmanager
async def page(database: Database, limit: int) -> AsyncIterator[bool]:
    """One page in a transaction of its own, committed only if the block ends well."""
    async with database.connect() as connection:
        await connection.execute("BEGIN")
        yield await move_next_page(connection, limit)
        await connection.execute("COMMIT")


class Killed(Exception):
    """The process died before the page was committed."""


async def move_with_kills(database: Database, limit: int) -> int:
    """Move page by page; each page is lost once to a kill before it is committed. Returns how many pages there were."""
    pages = 0
    while True:
        with pytest.raises(Killed):
            async with page(database, limit):
                raise Killed
        async with page(database, limit) as was_moved:
            pass
        if not was_moved:
            return pages
        pages += 1


async def shown(database: Database, town: Town) -> dict[str, Purses]:
    return {name: await database.run(purses, number) for name, number in town.ids.items()}


def held(paid: int = 0, credit: int = 0, earned: int = 0, debt: int = 0) -> Purses:
    return Purses(Money(paid), Money(credit), Money(earned), Money(debt))


async def test_a_move_with_a_kill_at_every_page_keeps_every_balance_and_every_view_empty(
    empty_database: Database,
) -> None:
    town = await fill(empty_database)
    await apply_files(empty_database)
    assert await move_with_kills(empty_database, 2) == 7 + 3, "pages of customers, then of subscriptions"
    async with empty_database.connect() as connection:
        assert await broken(connection) == []
        await check_schema(connection)
    now = await shown(empty_database, town)
    assert {name: each.balance.amount for name, each in now.items()} == {
        name: max(0, amount) for name, amount in town.balances.items()
    }
    assert {name: each.debt.amount for name, each in now.items()} == {
        name: min(0, amount) for name, amount in town.balances.items()
    }
    assert now == {
        "inviter": held(earned=now["inviter"].earned.amount),
        "saver": held(paid=85_100),
        "overdrawn": held(debt=-6_900),
        "taker": held(paid=80_000),
        "refunded": held(),
        "renewed": held(credit=5_100),
        "adjusted": held(paid=22_000),
        "parked": held(paid=7_000, credit=3_000),
        "loser": held(paid=40_000),
        "friend_of_loser": held(),
        "new": held(),
    }
    assert await empty_database.fetchval("SELECT sum(abs(balance)) FROM accounts WHERE kind = 'customer'") == 0


async def test_what_todays_rules_would_have_refused_is_a_case_with_its_numbers(empty_database: Database) -> None:
    town = await fill(empty_database)
    async with empty_database.connect() as connection:
        await migrate(connection)
        rows = await connection.fetch(
            "SELECT customer_id, details::text AS details FROM cases WHERE kind = 'purse_split' ORDER BY customer_id"
        )
        told = await connection.fetchval(
            "SELECT count(*) FROM outbox WHERE kind = 'case_opened' AND customer_id IS NULL "
            "AND payload->>'kind' = 'purse_split'"
        )
    cases = {row["customer_id"]: json.loads(row["details"]) for row in rows}
    assert set(cases) == {town.ids["adjusted"], town.ids["loser"]}
    assert told == 2
    adjusted, loser = cases[town.ids["adjusted"]], cases[town.ids["loser"]]
    assert (adjusted["balance"], adjusted["paid"], adjusted["journals_in_all"]) == (22_000, 22_000, 1)
    assert adjusted["journals"][0]["kind"] == "admin_adjust"
    assert adjusted["journals"][0]["purses"] == {"credit": 2_000, "paid": 28_000}
    assert (loser["journals"][0]["kind"], loser["journals"][0]["purses"]) == ("referral_clawback", {"paid": 60_000})


async def test_friends_pay_who_bought_access_with_outside_money_that_did_not_go_back(empty_database: Database) -> None:
    town = await fill(empty_database)
    async with empty_database.connect() as connection:
        await migrate(connection)
        rows = await connection.fetch("SELECT id FROM customers WHERE first_paid_at IS NOT NULL")
    names = {number: name for name, number in town.ids.items()}
    assert {names[row["id"]] for row in rows} == {"saver", "renewed"}, "top-ups buy nothing, and the refunded lost it"


async def test_money_that_was_rewarded_when_it_came_in_is_not_rewarded_again(empty_database: Database) -> None:
    town = await fill(empty_database)
    async with empty_database.connect() as connection:
        await migrate(connection)
    inviter, saver = town.ids["inviter"], 2
    before = (await empty_database.run(purses, inviter)).earned
    await empty_database.buy_from_balance(saver, key="old money")
    assert (await empty_database.run(purses, inviter)).earned == before
    # 702 of the 851 roubles that were there are left; of the next 1 000, all that goes beyond them is new.
    await empty_database.topup(saver, 100_000)
    for number in range(6):
        await empty_database.buy_from_balance(saver, key=f"more-{number}")
    spent = 7 * PRICE
    assert (await empty_database.run(purses, inviter)).earned == before + Money((spent - 85_100) // 10)
    assert await empty_database.broken_invariants() == []


async def test_a_rewarded_topup_goes_back_with_its_reward_and_new_money_counts_anew(
    empty_database: Database,
) -> None:
    town = await fill(empty_database)
    async with empty_database.connect() as connection:
        await migrate(connection)
        charge = await connection.fetchval("SELECT charge_id FROM money_in WHERE customer_id = $1", town.ids["saver"])
    inviter, saver = town.ids["inviter"], 2
    before = (await empty_database.run(purses, inviter)).earned
    done = await empty_database.run(refund_charge, "old", charge, amount=Money(85_100), actor="o", idempotency_key="r")
    assert done.clawed_back == Money(8_510)
    await empty_database.topup(saver, PRICE)
    await empty_database.buy_from_balance(saver, key="new money")
    assert (await empty_database.run(purses, inviter)).earned == before - Money(8_510) + Money(1_490)
    assert await empty_database.broken_invariants() == []


async def test_a_withdrawal_that_waited_gives_back_what_it_took_or_is_paid(empty_database: Database) -> None:
    town = await fill(empty_database)
    async with empty_database.connect() as connection:
        await migrate(connection)
    await empty_database.run(reject_withdrawal, town.waiting, actor="o", reason="no")
    assert await empty_database.run(purses, town.ids["taker"]) == held(paid=150_000)
    assert await empty_database.broken_invariants() == []
    with pytest.raises(Exception, match="was rejected"):
        await empty_database.run(approve_withdrawal, town.waiting, actor="o", reference="bank", second_above=None)


async def test_an_account_that_does_not_equal_its_postings_is_not_moved_and_a_case_says_so(
    empty_database: Database,
) -> None:
    town = await fill(empty_database)
    async with empty_database.connect() as connection:
        await connection.execute("UPDATE accounts SET balance = balance + 7 WHERE customer_id = $1", town.ids["saver"])
        await migrate(connection)
        [line] = [line for line in await broken(connection) if "i03" in line]
        details = await connection.fetchval(
            "SELECT details::text FROM cases WHERE kind = 'purse_split' AND customer_id = $1", town.ids["saver"]
        )
        found = json.loads(details)
        assert (found["balance"], found["postings"]) == (85_107, 85_100)
        assert "balance 85107, postings sum to 85100" in line
        # Put right, the step goes on with whom it left out.
        await connection.execute(
            "UPDATE accounts SET balance = balance - 7 WHERE kind = 'customer' AND customer_id = $1; ".replace(
                "$1", str(town.ids["saver"])
            )
            + "UPDATE moving_over SET last_id = 0, done_at = NULL"
        )
        await migrate(connection)
        assert [line for line in await broken(connection) if "at rest" not in line] == []
    assert await empty_database.run(purses, town.ids["saver"]) == held(paid=85_100)


async def test_a_database_that_is_half_moved_is_not_served_and_the_next_start_goes_on(empty_database: Database) -> None:
    await fill(empty_database)
    await apply_files(empty_database)
    async with page(empty_database, 3):
        pass
    async with empty_database.connect() as connection:
        with pytest.raises(MigrationError, match="step 'purses' has come to number 3; run `atlas db migrate`"):
            await check_schema(connection)
        assert await migrate(connection) == ()
        await check_schema(connection)
        assert await unfinished_step(connection) is None


async def test_a_new_database_has_nothing_to_move(database: Database) -> None:
    async with database.connect() as connection:
        assert await unfinished_step(connection) is None


async def test_the_move_begins_only_while_no_instance_works_and_names_the_one_that_does(
    empty_database: Database,
) -> None:
    await fill(empty_database)
    async with empty_database.connect() as connection:
        await connection.execute(
            "INSERT INTO epochs VALUES ('supervisor', 1, 'old', 'host-a', 77, now(), now(), now() + interval '1 hour')"
        )
        with pytest.raises(
            InstanceWorks, match=r"0017_purses is applied only .* pid 77 on host host-a, since .* Stop it"
        ):
            await migrate(connection, wait=0.3)
        assert await connection.fetchval("SELECT count(*) FROM schema_migrations") == 16
        await connection.execute("UPDATE epochs SET held_until = now()")
        assert len(await migrate(connection, wait=0.3)) == len(load_migrations()) - 16


async def test_a_released_program_is_refused_the_instance_row_in_a_sentence(empty_database: Database) -> None:
    async with empty_database.connect() as connection:
        await migrate(connection, migrations=RELEASED)
        claim = (
            "INSERT INTO epochs AS e (name, epoch, holder, host, pid, acquired_at, renewed_at, held_until) "
            "VALUES ('supervisor', 1, 'old', 'h', 1, now(), now(), now() + interval '2 s') ON CONFLICT (name) DO UPDATE "
            "SET epoch = e.epoch + 1, held_until = excluded.held_until"
        )
        await connection.execute(claim)
        await connection.execute("UPDATE epochs SET held_until = now()")
        await migrate(connection)
        refusal = (
            "this program knows the schema up to a version that it does not name .* start the program that migrated it"
        )
        with pytest.raises(Exception, match=refusal):
            await connection.execute(claim)
        mine = await acquire_epoch(connection, "supervisor", "new", 60.0)
        assert mine.is_mine
        assert await renew_epoch(connection, mine, 60.0)
        for older in ("UPDATE epochs SET held_until = now() + interval '2 s'", "UPDATE epochs SET schema_version = 16"):
            with pytest.raises(Exception, match="may not work here"):
                await connection.execute(older)
        await connection.execute("UPDATE epochs SET held_until = now()")  # giving it up is nobody's harm
