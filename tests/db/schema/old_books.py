"""The books of a shop before purses, written as the released program wrote them: one account a customer, rewards on top-ups."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs

from tests.db.database import Connection

AGO = timedelta(days=20)
"""When it begins; each fact comes an hour after the one before."""
PRICE = 14_900


@attrs.define
class OldBooks:
    """Writes facts by the rules of the schema up to 0016."""

    tx: Connection
    _number: int = 0

    async def customer(self, telegram_id: int, *, referrer: int | None = None, floor: int = 0) -> int:
        """A customer with the one account."""
        number: int = await self.tx.fetchval(
            "INSERT INTO customers (telegram_id, referrer_id) VALUES ($1, $2) RETURNING id", telegram_id, referrer
        )
        await self.tx.execute(
            "INSERT INTO accounts (kind, customer_id, currency, balance, balance_floor) VALUES ('customer', $1, 'RUB', 0, $2)",
            number,
            floor,
        )
        return number

    async def balance(self, customer: int) -> int:
        """What the one account holds."""
        held: int = await self.tx.fetchval(
            "SELECT balance FROM accounts WHERE kind = 'customer' AND customer_id = $1", customer
        )
        return held

    async def topup(self, customer: int, amount: int) -> int:
        """A top-up, which is rewarded; returns the charge."""
        order = await self._order(customer, "topup", amount, "provider")
        charge = await self._charge(customer, order, amount)
        await self._post("topup", [("world", -amount), (customer, amount)], customer, order, charge)
        await self._reward(customer, charge, amount)
        return charge

    async def buy(self, customer: int) -> int:
        """A purchase through a provider; returns the charge."""
        order = await self._order(customer, "subscription", PRICE, "provider")
        charge = await self._charge(customer, order, PRICE)
        journal = await self._post("purchase", [("world", -PRICE), ("revenue", PRICE)], customer, order, charge)
        await self._grant(customer, "payment", journal, order=order, charge=charge)
        await self._reward(customer, charge, PRICE)
        return charge

    async def spend(self, customer: int) -> None:
        """A purchase from the balance, which is not rewarded."""
        order = await self._order(customer, "subscription", PRICE, "balance")
        journal = await self._post("balance_purchase", [(customer, -PRICE), ("revenue", PRICE)], customer, order)
        await self._grant(customer, "balance", journal, order=order)

    async def renew(self, customer: int) -> None:
        """A renewal from the balance."""
        journal = await self._post("auto_renewal", [(customer, -PRICE), ("revenue", PRICE)], customer)
        await self._grant(customer, "auto_renewal", journal)

    async def refund(self, charge: int, amount: int, *, from_account: int, written_off: int = 0) -> None:
        """A credited charge goes back; the reward in proportion, as far as the referrer's balance covers it."""
        found = await self.tx.fetchrow(
            "SELECT m.booked_amount, r.amount, r.referrer_id FROM money_in m "
            "LEFT JOIN referral_rewards r ON r.money_in_id = m.id WHERE m.id = $1",
            charge,
        )
        assert found is not None
        legs: list[tuple[int | str, int]] = [
            (from_account, written_off - amount),
            ("adjustment", -written_off),
            ("world", amount),
        ]
        journal = await self._post("refund", [leg for leg in legs if leg[1]], from_account, charge=charge)
        clawback = None
        if found["referrer_id"] is not None:
            due = min(found["amount"] * amount // found["booked_amount"], await self.balance(found["referrer_id"]))
            if due > 0:
                legs = [(found["referrer_id"], -due), ("referral_expense", due)]
                clawback = await self._post("referral_clawback", legs, found["referrer_id"], charge=charge)
        await self.tx.execute(
            "INSERT INTO refunds (money_in_id, journal_id, idempotency_key, amount, currency, actor, written_off, "
            "clawback_journal_id, created_at) VALUES ($1, $2, $3, $4, 'RUB', 'o', $5, $6, $7)",
            charge,
            journal,
            f"r{journal}",
            amount,
            written_off,
            clawback,
            await self._now(),
        )

    async def withdraw(self, customer: int, amount: int, state: str) -> int:
        """A withdrawal of any money, `reserved`, `paid` or `rejected`; returns its number."""
        reserve = await self._post(
            "withdrawal_reserve", [(customer, -amount), ("withdrawal_reserve", amount)], customer
        )
        settle, at = None, await self._now()
        if state != "reserved":
            kind, target = ("withdrawal_paid", "world") if state == "paid" else ("withdrawal_release", customer)
            settle = await self._post(kind, [("withdrawal_reserve", -amount), (target, amount)], customer)
        number: int = await self.tx.fetchval(
            """
            INSERT INTO withdrawals (customer_id, idempotency_key, amount, currency, requisites, state, reserve_journal_id,
                                     settle_journal_id, settled_at, settled_by, reference, reason, created_at)
            VALUES ($1, $2, $3, 'RUB', '{"destination": "card"}', $4, $5, $6, CASE WHEN $4 <> 'reserved' THEN $7::timestamptz END,
                    CASE WHEN $4 <> 'reserved' THEN 'o' END, CASE $4 WHEN 'paid' THEN 'bank' END,
                    CASE $4 WHEN 'rejected' THEN 'no' END, $7)
            RETURNING id
            """,
            customer,
            f"w{reserve}",
            amount,
            state,
            reserve,
            settle,
            at,
        )
        return number

    async def adjust(self, customer: int, amount: int) -> None:
        """An adjustment by an operator."""
        await self._post("admin_adjust", [("adjustment", -amount), (customer, amount)], customer)

    async def compensate(self, customer: int, amount: int) -> None:
        """A credit for what was not delivered."""
        await self._post("compensation", [("compensation_expense", -amount), (customer, amount)], customer)

    async def credit_case(self, customer: int, amount: int, *, known: bool) -> None:
        """A charge of nobody that an operator gave to a customer; of a value in roubles that is known, or not."""
        charge = await self._charge(None, None, amount, known=known)
        case = await self.tx.fetchval(
            "INSERT INTO cases (kind, subject, money_in_id, state, closed_at, resolution, closed_by, opened_at) "
            "VALUES ('payment', 'money_in:' || $1::text, $1::text::bigint, 'closed', $2, 'credited', 'o', $2) RETURNING id",
            str(charge),
            await self._now(),
        )
        if known:
            await self._post("suspense", [("world", -amount), ("suspense", amount)], None, charge=charge)
        source = "suspense" if known else "adjustment"
        await self._post(
            "case_credit", [(source, -amount), (customer, amount)], customer, charge=charge, key=f"case:{case}"
        )
        if known:
            await self._reward(customer, charge, amount)

    async def place_keys(self) -> None:
        """One node that has a key for every subscription."""
        await self.tx.execute(
            """
            INSERT INTO vpn_nodes (name, endpoint, inbounds) VALUES ('n1', '{}', '{in}');
            INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status, activated_at)
            SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), id, gen_random_uuid(), 1, 'present', 'active',
                   now() - interval '19 days' FROM subscriptions;
            INSERT INTO key_placements (key_id, node_id, applied, applied_generation, applied_expires_at)
            SELECT k.id, n.id, 'present', 1, s.expires_at
            FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id CROSS JOIN vpn_nodes n
            """
        )

    async def _now(self) -> Any:
        self._number += 1
        return await self.tx.fetchval("SELECT now() - $1::interval + $2::interval", AGO, timedelta(hours=self._number))

    async def _order(self, customer: int, kind: str, amount: int, paid_from: str) -> int:
        plan = ("basic", 30) if kind == "subscription" else (None, None)
        number: int = await self.tx.fetchval(
            """
            INSERT INTO orders (customer_id, kind, tariff, days, list_amount, price_amount, quoted_amount, quoted_asset,
                                quoted_rate, idempotency_key, state, paid_from, paid_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $5, $5, 'RUB', 1, gen_random_uuid()::text, 'paid', $6, $7, $7) RETURNING id
            """,
            customer,
            kind,
            *plan,
            amount,
            paid_from,
            await self._now(),
        )
        return number

    async def _charge(self, customer: int | None, order: int | None, amount: int, *, known: bool = True) -> int:
        number: int = await self.tx.fetchval(
            "INSERT INTO money_in (provider, charge_id, customer_id, order_id, amount, asset, booked_amount, received_at) "
            "VALUES ('old', gen_random_uuid()::text, $1, $2, $3, $4, $5, $6) RETURNING id",
            customer,
            order,
            amount,
            "RUB" if known else "TON",
            amount if known else 0,
            await self._now(),
        )
        return number

    async def _post(
        self,
        kind: str,
        legs: Sequence[tuple[int | str, int]],
        customer: int | None,
        order: int | None = None,
        charge: int | None = None,
        key: str | None = None,
    ) -> int:
        number: int = await self.tx.fetchval(
            """
            WITH journal AS (
                INSERT INTO journals (kind, idempotency_key, customer_id, order_id, money_in_id, created_at)
                VALUES ($1, coalesce($2, gen_random_uuid()::text), $3, $4, $5, $6) RETURNING id
            ), posted AS (
                INSERT INTO postings (journal_id, account_id, currency, amount)
                SELECT journal.id, a.id, 'RUB', leg.amount FROM journal
                CROSS JOIN unnest($7::text[], $8::bigint[], $9::bigint[]) AS leg (kind, customer_id, amount)
                JOIN accounts a ON a.kind = leg.kind AND a.customer_id IS NOT DISTINCT FROM leg.customer_id
            )
            SELECT id FROM journal
            """,
            kind,
            key,
            customer,
            order,
            charge,
            await self._now(),
            ["customer" if isinstance(account, int) else account for account, _ in legs],
            [account if isinstance(account, int) else None for account, _ in legs],
            [amount for _, amount in legs],
        )
        return number

    async def _reward(self, buyer: int, charge: int, amount: int) -> None:
        referrer = await self.tx.fetchval(
            "UPDATE customers SET first_paid_at = coalesce(first_paid_at, $2) WHERE id = $1 RETURNING referrer_id",
            buyer,
            await self._now(),
        )
        if referrer is None:
            return
        friends = await self.tx.fetchval(
            "SELECT count(*) FROM customers WHERE referrer_id = $1 AND first_paid_at IS NOT NULL", referrer
        )
        share = amount // 10
        journal = await self._post(
            "referral_reward", [("referral_expense", -share), (referrer, share)], referrer, None, charge
        )
        await self.tx.execute(
            "INSERT INTO referral_rewards (buyer_id, referrer_id, money_in_id, journal_id, friends, percent, amount, currency, "
            "created_at) VALUES ($1, $2, $3, $4, $5, 10, $6, 'RUB', $7)",
            buyer,
            referrer,
            charge,
            journal,
            friends,
            share,
            await self._now(),
        )

    async def _grant(
        self, customer: int, source: str, journal: int, *, order: int | None = None, charge: int | None = None
    ) -> None:
        at = await self._now()
        event = await self.tx.fetchval(
            """
            WITH before AS (
                SELECT s.id, s.expires_at, count(e.id) AS events FROM subscriptions s
                JOIN entitlement_events e ON e.subscription_id = s.id WHERE s.customer_id = $1 GROUP BY s.id
            ), subscription AS (
                INSERT INTO subscriptions (customer_id, tariff, source, state, expires_at, plan_tariff, period_days, price_amount,
                                           price_currency)
                VALUES ($1, 'basic', $2, 'active', $3::timestamptz + interval '30 days', 'basic', 30, 14900, 'RUB')
                ON CONFLICT (customer_id) DO UPDATE SET expires_at = subscriptions.expires_at + interval '30 days', source = $2
                RETURNING id, expires_at
            ), term AS (
                INSERT INTO tariff_terms SELECT id, 'basic', expires_at FROM subscription
                ON CONFLICT (subscription_id, tariff) DO UPDATE SET ends_at = excluded.ends_at
            )
            INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end,
                                            order_id, money_in_id, journal_id, actor, created_at)
            SELECT s.id, coalesce(before.events, 0) + 1, 'grant', $2, 'basic', interval '30 days', before.expires_at,
                   s.expires_at, $4, $5, $6, 'old', $3
            FROM subscription s LEFT JOIN before ON before.id = s.id RETURNING id
            """,
            customer,
            source,
            at,
            order,
            charge,
            journal,
        )
        if source == "auto_renewal":
            await self.tx.execute(
                "INSERT INTO renewals (subscription_id, period_start, journal_id, event_id, created_at) "
                "SELECT subscription_id, previous_end, $2, id, created_at FROM entitlement_events WHERE id = $1",
                event,
                journal,
            )
