"""The schema: numbered SQL files in `migrations/`, each applied once, in order; what they lead to is `schema.txt`.

Entry points: `migrate.migrate` and `migrate.check_schema`; `describe.describe_schema`, whose lines `schema.txt` holds;
`demo_clock.set_clock_offset` for demonstrations and tests. Rows that a file cannot move in one statement are moved page by
page (`moving_over`). A released file is never edited. For the pool at its start and
operators' commands.
"""
