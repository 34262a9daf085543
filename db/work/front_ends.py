"""What a front end remembers of a customer between two requests: a question, a promo code, accepted rules, a screen that waits.

Each is a row with an end, one a customer and kind: a restart of the front end loses nothing, and who leaves in the middle leaves
nothing behind that another visit would trip over. No money moves here.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import attrs

from db.customers import Customer, add_customer, find_customer, touch_contact_unless_busy
from db.errors import UnknownCustomer
from db.tx import Tx

WaitsFor = Literal["payment", "key"]


@attrs.frozen
class Prompt:
    """A question that waits for the customer's answer, in the front end's words."""

    screen: str
    args: tuple[str, ...] = ()


@attrs.frozen
class Visitor:
    """A customer who comes by, with what is remembered of them."""

    customer: Customer
    prompt: Prompt | None
    promo_code: str | None
    accepted_rules: str | None
    """The version of the rules that was accepted last."""
    waiting: int | None = None
    """The screen on which the customer waits for a payment or a key."""


@attrs.frozen
class WaitingScreen:
    """A screen on which a customer waits, and what for."""

    customer_id: int
    telegram_id: int
    screen: int
    order_id: int
    waits_for: WaitsFor


async def meet(
    tx: Tx, telegram_id: int, *, language: str, referrer_telegram_id: int | None = None, may_join: bool = True
) -> Visitor | None:
    """Note that somebody came by, as `add_customer` does, and return what is remembered of them.

    `None`: it is no customer, and by `may_join` does not become one; nothing was written. A customer whose row another
    transaction has locked is not waited for. Raises `BusinessError` if the Telegram id is not positive.
    """
    if not await touch_contact_unless_busy(tx, telegram_id):
        if not may_join:
            return None
        await add_customer(tx, telegram_id, language=language, referrer_telegram_id=referrer_telegram_id)
    customer = await find_customer(tx, telegram_id)
    row = await tx.fetchrow(
        """
        SELECT p.screen, p.args, e.code, r.version, w.screen AS waiting FROM (SELECT $1::bigint AS id) c
        LEFT JOIN prompts p ON p.customer_id = c.id AND p.until > atlas_now()
        LEFT JOIN entered_promos e ON e.customer_id = c.id AND e.until > atlas_now()
        LEFT JOIN accepted_rules r ON r.customer_id = c.id
        LEFT JOIN waiting_screens w ON w.customer_id = c.id AND w.until > atlas_now()
        """,
        customer.id,
    )
    assert row is not None, "a left join of one row"
    prompt = None if row["screen"] is None else Prompt(row["screen"], tuple(json.loads(row["args"])))
    return Visitor(customer, prompt, row["code"], row["version"], row["waiting"])


async def set_prompt(tx: Tx, customer_id: int, prompt: Prompt, lasts: timedelta = timedelta(minutes=15)) -> None:
    """Wait for the customer's answer to this question; an earlier one is dropped."""
    await tx.execute(
        """
        INSERT INTO prompts (customer_id, screen, args, until) VALUES ($1, $2, $3, atlas_now() + $4::interval)
        ON CONFLICT (customer_id) DO UPDATE SET screen = excluded.screen, args = excluded.args, until = excluded.until
        """,
        customer_id,
        prompt.screen,
        json.dumps(prompt.args),
        lasts,
    )


async def end_prompt(tx: Tx, customer_id: int) -> None:
    """Wait for no answer any more."""
    await tx.execute("DELETE FROM prompts WHERE customer_id = $1", customer_id)


async def keep_promo(tx: Tx, customer_id: int, code: str, lasts: timedelta = timedelta(hours=1)) -> None:
    """Remember the promo code that the customer has entered, instead of an earlier one. It is checked when it is used."""
    await tx.execute(
        """
        INSERT INTO entered_promos (customer_id, code, until) VALUES ($1, $2, atlas_now() + $3::interval)
        ON CONFLICT (customer_id) DO UPDATE SET code = excluded.code, until = excluded.until
        """,
        customer_id,
        code,
        lasts,
    )


async def drop_promo(tx: Tx, customer_id: int) -> None:
    """Forget the promo code that the customer has entered."""
    await tx.execute("DELETE FROM entered_promos WHERE customer_id = $1", customer_id)


async def accept_rules(tx: Tx, customer_id: int, version: str) -> None:
    """Note that the customer has accepted this version of the rules; the first time counts."""
    await tx.execute(
        """
        INSERT INTO accepted_rules AS r (customer_id, version) VALUES ($1, $2)
        ON CONFLICT (customer_id) DO UPDATE SET version = excluded.version, accepted_at = excluded.accepted_at
            WHERE r.version <> excluded.version
        """,
        customer_id,
        version,
    )


async def wait_on_screen(
    tx: Tx, telegram_id: int, screen: int, order_id: int, waits_for: WaitsFor, lasts: timedelta = timedelta(hours=24)
) -> None:
    """Remember the screen on which the customer waits for this order's payment or key. Raises `UnknownCustomer`."""
    written = await tx.fetchval(
        """
        INSERT INTO waiting_screens (customer_id, screen, order_id, waits_for, until)
        SELECT id, $2, $3, $4, atlas_now() + $5::interval FROM customers WHERE telegram_id = $1
        ON CONFLICT (customer_id) DO UPDATE
            SET screen = excluded.screen, order_id = excluded.order_id, waits_for = excluded.waits_for,
                until = excluded.until
        RETURNING customer_id
        """,
        telegram_id,
        screen,
        order_id,
        waits_for,
        lasts,
    )
    if written is None:
        raise UnknownCustomer(f"Telegram id {telegram_id}")


async def due_screens(tx: Tx, limit: int = 100) -> Sequence[WaitingScreen]:
    """Screens for which what they wait for has happened, or can happen no more."""
    rows = await tx.fetch(
        """
        SELECT w.customer_id, c.telegram_id, w.screen, w.order_id, w.waits_for
        FROM waiting_screens w JOIN customers c ON c.id = w.customer_id JOIN orders o ON o.id = w.order_id
        WHERE w.until > atlas_now() AND CASE w.waits_for
            WHEN 'payment' THEN o.state <> 'pending'
            ELSE EXISTS (SELECT FROM subscriptions s JOIN vpn_keys k ON k.subscription_id = s.id
                         WHERE s.customer_id = w.customer_id AND s.state = 'active' AND k.wanted = 'present'
                           AND k.activation_status = 'active') END
        ORDER BY w.customer_id LIMIT $1
        """,
        limit,
    )
    return [
        WaitingScreen(row["customer_id"], row["telegram_id"], row["screen"], row["order_id"], row["waits_for"])
        for row in rows
    ]


async def settle_screen(tx: Tx, waiting: WaitingScreen, then: WaitsFor | None = None) -> bool:
    """The screen says now what happened, and waits for something else `then`, or for nothing any more.

    `False`: the customer waits on another screen meanwhile; nothing was written.
    """
    same = "customer_id = $1 AND screen = $2 AND order_id = $3 AND waits_for = $4"
    key = (waiting.customer_id, waiting.screen, waiting.order_id, waiting.waits_for)
    if then is None:
        tag = await tx.execute(f"DELETE FROM waiting_screens WHERE {same}", *key)  # noqa: S608 - our own condition
    else:
        tag = await tx.execute(f"UPDATE waiting_screens SET waits_for = $5 WHERE {same}", *key, then)  # noqa: S608 - our own condition
    return tag.endswith(" 1")


async def stop_waiting(tx: Tx, customer_id: int, screen: int) -> None:
    """The customer has gone on from this screen, which says something else now."""
    await tx.execute("DELETE FROM waiting_screens WHERE customer_id = $1 AND screen = $2", customer_id, screen)
