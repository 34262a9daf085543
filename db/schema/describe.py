"""A description of the schema as the server sees it, to compare with the committed one (`db/schema/schema.txt`).

It is written so that PostgreSQL 15 and 18 describe the same schema in the same words: NOT NULL is a property of the
column, and functions and views are told by the migrations that make them, not by the server's rendering of them.
"""

from pathlib import Path

from db.tx import Tx

EXPECTED = Path(__file__).parent / "schema.txt"
"""What the migrations of this program lead to."""


async def describe_schema(tx: Tx) -> str:
    """One line per column, constraint, index, trigger, function and view of the current schema, sorted."""
    rows = await tx.fetch(
        """
        WITH mine AS (
            SELECT c.oid, c.relname, c.relkind FROM pg_class c
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v')
        )
        SELECT format('%s.%s %s%s%s%s', t.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                      CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
                      CASE WHEN a.attidentity <> '' THEN ' identity' ELSE '' END,
                      ' default ' || pg_get_expr(d.adbin, d.adrelid)) AS line
        FROM mine t
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
        WHERE t.relkind = 'r'
        UNION ALL
        SELECT format('%s constraint %s %s', t.relname, c.conname, pg_get_constraintdef(c.oid))
        FROM mine t JOIN pg_constraint c ON c.conrelid = t.oid AND c.contype IN ('c', 'f', 'p', 'u')
        UNION ALL
        SELECT format('%s index %s', t.relname, pg_get_indexdef(i.indexrelid))
        FROM mine t JOIN pg_index i ON i.indrelid = t.oid
        WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u'))
        UNION ALL
        SELECT format('%s trigger %s', t.relname, pg_get_triggerdef(g.oid))
        FROM mine t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
        UNION ALL
        SELECT format('function %s(%s) returns %s', p.proname, pg_get_function_identity_arguments(p.oid),
                      pg_get_function_result(p.oid))
        FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace
        UNION ALL
        SELECT format('view %s(%s)%s', t.relname,
                      (SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = t.oid AND attnum > 0),
                      ' -- ' || obj_description(t.oid, 'pg_class'))
        FROM mine t WHERE t.relkind = 'v'
        """
    )
    return "".join(f"{line}\n" for line in sorted(row["line"] for row in rows))
