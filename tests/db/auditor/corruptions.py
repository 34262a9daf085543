"""Alterations of single rows, a few for each column that means money, planned from the catalog."""

from collections.abc import Sequence
from typing import Final

import attrs

from db.tx import Row, Tx
from tests.db.auditor.columns import WHOLE_TABLES, means_money

CATEGORIES: Final = {
    "accounts": "kind || (coalesce(balance, 0) <> 0)",
    "audit": "action",
    "cases": "kind || state",
    "entitlement_events": "kind || source || (order_id IS NULL)",
    "entitlement_intervals": "(used > '0') || '' || (taken > '0')",
    "journals": "kind",
    "money_in": "asset || (SELECT kind FROM journals j WHERE j.money_in_id = t.id ORDER BY j.id LIMIT 1)",
    "orders": "kind || state || coalesce(paid_from, '') || coalesce(discount_source, '') || quoted_asset",
    "postings": "(SELECT kind FROM journals j WHERE j.id = journal_id) || (SELECT kind FROM accounts a WHERE a.id = account_id)",
    "provider_refunds": "state || (refund_id IS NULL)",
    "refunds": "(spent > 0) || '' || (owed > 0) || (written_off > 0) || (event_id IS NULL)",
    "referral_rewards": "percent || '' || (money_in_id IS NULL)",
    "row_facts": "relation",
    "subscriptions": "state || auto_renew",
    "vpn_keys": "wanted",
    "withdrawals": "state",
    "provider_events": "outcome ->> 'result'",
}
"""One row of each category is altered."""


@attrs.frozen
class Corruption:
    """One altered row."""

    table: str
    column: str
    """`*`: the row as a whole."""
    how: str
    statement: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column} {self.how}: {self.statement}"


async def plan(tx: Tx, tables: Sequence[str] | None = None) -> list[Corruption]:
    """Every corruption of these tables, or of all."""
    columns = await tx.fetch(
        """
        SELECT c.relname AS table, a.attname AS column, format_type(a.atttypid, NULL) AS type, NOT a.attnotnull AS nullable,
               (SELECT f.confrelid::regclass::text || '.' || ta.attname FROM pg_constraint f
                JOIN pg_attribute ta ON ta.attrelid = f.confrelid AND ta.attnum = f.confkey[1]
                WHERE f.contype = 'f' AND f.conrelid = c.oid AND f.conkey = ARRAY[a.attnum] LIMIT 1) AS target
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
        ORDER BY c.relname, a.attnum
        """
    )
    planned: list[Corruption] = []
    for table in sorted({row["table"] for row in columns}):
        if tables is not None and table not in tables:
            continue
        mine = [row for row in columns if row["table"] == table and means_money(table, row["column"])]
        if not mine:
            continue
        category = CATEGORIES.get(table, "1")
        places = await tx.fetch(
            f"SELECT DISTINCT ON ({category}) ctid::text FROM {table} t ORDER BY {category}, ctid DESC"
        )
        for place in places:
            where = f"WHERE ctid = '{place['ctid']}'"
            for column in mine:
                for how, value in _ways(column):
                    name = column["column"]
                    statement = f"UPDATE {table} t SET {name} = {value} {where} AND {name} IS DISTINCT FROM {value}"
                    planned.append(Corruption(table, name, how, statement))
            if table in WHOLE_TABLES:
                continue
            planned.append(Corruption(table, "*", "deleted", f"DELETE FROM {table} {where}"))
            planned.append(Corruption(table, "*", "doubled", _doubled(table, columns, where)))
    return planned


def _ways(column: Row) -> list[tuple[str, str]]:
    name, type_, table = column["column"], column["type"], column["table"]
    ways = []
    if column["target"] is not None:
        target, key = column["target"].split(".")
        ways.append(
            (
                "moved to another",
                f"(SELECT {key} FROM {target} x WHERE x.{key} IS DISTINCT FROM t.{name} ORDER BY x.{key} DESC LIMIT 1)",
            )
        )
    elif type_ in ("bigint", "integer", "smallint", "numeric"):
        ways.append(("another amount", f"coalesce({name}, 0) + 1"))
        ways.append(("a tenth", f"{name} / 10"))
    elif type_ == "timestamp with time zone":
        ways.append(("shifted in time", f"coalesce({name}, atlas_now()) + interval '40 days'"))
        ways.append(("shifted back", f"coalesce({name}, atlas_now()) - interval '40 days'"))
    elif type_ == "interval":
        ways.append(("more time", f"coalesce({name}, '0') + interval '335 days'"))
        ways.append(("less time", f"{name} - interval '1 hour'"))
    elif type_ == "boolean":
        ways.append(("flipped", f"NOT {name}"))
    elif type_ == "jsonb":
        for how, kind, altered in (
            ("other numbers", "number", "to_jsonb(value::numeric + 1)"),
            ("flipped", "boolean", "to_jsonb(NOT value::boolean)"),
        ):
            each = f"CASE jsonb_typeof(value) WHEN '{kind}' THEN {altered} ELSE value END"
            ways.append((how, f"(SELECT jsonb_object_agg(key, {each}) FROM jsonb_each({name}))"))
    elif type_ == "uuid":
        ways.append(("another", "gen_random_uuid()"))
    else:
        ways.append(
            (
                "another kind",
                f"(SELECT x.{name} FROM {table} x WHERE x.{name} <> coalesce(t.{name}, '') ORDER BY 1 DESC LIMIT 1)",
            )
        )
        ways.append(("another word", f"{name} || 'x'"))
    if column["nullable"]:
        ways.append(("forgotten", "NULL"))
    return ways


def _doubled(table: str, columns: Sequence[Row], where: str) -> str:
    values = []
    names = []
    for column in columns:
        if column["table"] != table:
            continue
        name = column["column"]
        names.append(name)
        if name == "id":
            values.append(f"(SELECT max(id) + 1000 FROM {table})")
        elif (
            name
            in (
                "idempotency_key",
                "subject",
                "charge_id",
                "event_id",
                "code",
                "token",
                "key_id",
                "row_key",
                "request_key",
            )
            and column["type"] == "text"
        ):
            values.append(f"{name} || 'x'")
        elif name == "position":
            values.append("position + 1000")
        elif name == "uuid":
            values.append("gen_random_uuid()")
        else:
            values.append(name)
    return f"INSERT INTO {table} ({', '.join(names)}) OVERRIDING SYSTEM VALUE SELECT {', '.join(values)} FROM {table} {where}"
