"""Traffic of customers' keys, added up over nodes and their restarts."""

from collections.abc import Sequence
from typing import Final

import attrs

from db.tx import Tx

MOST_BYTES: Final = 2**53
"""A counter beyond this is taken for this much: no key moves eight petabytes in one life of a node."""


@attrs.frozen
class CustomerTraffic:
    """Bytes since the beginning, as the customer sees them."""

    uploaded: int
    downloaded: int


async def note_usage(tx: Tx, node: str, boot_id: str, counters: Sequence[tuple[str, int, int]]) -> int:
    """Note absolute counters (key id, uplink, downlink) of this boot of the node; returns how many keys were known.

    The difference to what the same boot told last is added; a counter of another boot is added whole. Noting the same again
    adds nothing. Keys that are not customers' are passed over, as is a counter that went back within one boot.
    """
    noted: int = await tx.fetchval(
        """
        WITH told AS (
            SELECT k.id AS key_id, n.id AS node_id, least(greatest(t.uplink, 0), $6::bigint)::bigint AS uplink,
                   least(greatest(t.downlink, 0), $6::bigint)::bigint AS downlink
            FROM unnest($3::text[], $4::numeric[], $5::numeric[]) AS t (key_id, uplink, downlink)
            JOIN vpn_keys k ON k.key_id = t.key_id
            JOIN vpn_nodes n ON n.name = $1
        ), noted AS (
            INSERT INTO key_usage AS u (key_id, node_id, boot_id, uplink, downlink, uploaded, downloaded)
            SELECT key_id, node_id, $2, uplink, downlink, uplink, downlink FROM told ORDER BY key_id
            ON CONFLICT (key_id, node_id) DO UPDATE
                SET boot_id = excluded.boot_id,
                    uplink = CASE WHEN u.boot_id = excluded.boot_id THEN greatest(u.uplink, excluded.uplink)
                                  ELSE excluded.uplink END,
                    downlink = CASE WHEN u.boot_id = excluded.boot_id THEN greatest(u.downlink, excluded.downlink)
                                    ELSE excluded.downlink END,
                    uploaded = least(u.uploaded + greatest(excluded.uplink
                        - CASE WHEN u.boot_id = excluded.boot_id THEN u.uplink ELSE 0 END, 0), $6::bigint),
                    downloaded = least(u.downloaded + greatest(excluded.downlink
                        - CASE WHEN u.boot_id = excluded.boot_id THEN u.downlink ELSE 0 END, 0), $6::bigint),
                    noted_at = atlas_now()
            RETURNING 1
        )
        SELECT count(*) FROM noted
        """,
        node,
        boot_id,
        [key_id for key_id, _, _ in counters],
        [uplink for _, uplink, _ in counters],
        [downlink for _, _, downlink in counters],
        MOST_BYTES,
    )
    return noted


async def usage_of(tx: Tx, telegram_id: int) -> CustomerTraffic:
    """What the customer's keys moved, reissued ones included; 0 for who is not known."""
    row = await tx.fetchrow(
        """
        SELECT coalesce(sum(u.uploaded), 0)::bigint AS uploaded, coalesce(sum(u.downloaded), 0)::bigint AS downloaded
        FROM customers c
        JOIN subscriptions s ON s.customer_id = c.id
        JOIN vpn_keys k ON k.subscription_id = s.id
        JOIN key_usage u ON u.key_id = k.id
        WHERE c.telegram_id = $1
        """,
        telegram_id,
    )
    assert row is not None, "an aggregate is one row"
    return CustomerTraffic(row["uploaded"], row["downloaded"])
