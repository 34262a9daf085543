"""How many keys go live in a second, beside what pgbench does with the very same statements and nothing else.

Ours is the real worker on a real pool, with a real node agent and Xray behind the node's actor: each key is claimed, put on
the node, read back there, confirmed in a transaction of its own and told to the customer's outbox. pgbench only runs the
statements, which are recorded from the worker's own functions and not written down a second time. Both work on as many keys,
in databases made from the same template, with the same number of connections.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import trio

from actors.keys.activation import Activation
from benchmarks.filling import execute_script
from benchmarks.leases import server
from benchmarks.leasing.workload import CONNECTIONS
from benchmarks.result import Result, share
from benchmarks.rounds import medians
from db.driver.session import open_session
from db.keys.activation import claim_activations, confirm_activation
from db.keys.claims import NodeConfirmation
from db.keys.nodes import register_node
from db.tx import Row, Tx
from db.work.claims import Claimer
from tests.actors.node_fixtures import NEVER, NodeHarness, node_harness
from tests.postgres_cluster import Cluster

PAGE = 50
NODE = "oslo"
FILL = """
INSERT INTO customers (telegram_id) SELECT n FROM generate_series(1, {count}) n;
SET LOCAL session_replication_role = replica;  -- bulk rows: no triggers, no events
INSERT INTO subscriptions (customer_id, tariff, tariff_until, source, state, expires_at)
SELECT id, 'basic', now() + interval '20 days', 'payment', 'active', now() + interval '20 days' FROM customers;
INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status)
SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), id, gen_random_uuid(), 1, 'present', 'pending' FROM subscriptions;
ANALYZE;
"""
_NAME = "benchmark"
_COMMENT = re.compile(r"--[^\n]*")
_PARAMETER = re.compile(r"\$(\d+)")
_TPS = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)


@attrs.frozen
class Sizes:
    """How many keys a round makes live, and how many rounds are counted."""

    keys: int = 2_000
    rounds: int = 5


QUICK = Sizes(keys=100, rounds=1)


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    sizes = QUICK if quick else Sizes()
    with server() as cluster:
        template = cluster.template()

        def fresh() -> str:
            return cluster.dsn(cluster.create_database(template))

        seconds = medians(
            {
                "ours": lambda: trio.run(_ours, fresh(), sizes.keys) / sizes.keys,
                "pgbench": lambda: _pgbench(cluster, fresh(), sizes.keys),
            },
            sizes.rounds,
        )
    return [
        share(
            "activation: keys on the node and confirmed",
            1 / seconds["ours"],
            "1/s",
            f"pgbench: the same statements on {CONNECTIONS} connections, no node",
            1 / seconds["pgbench"],
            at_least=0.5,
        )
    ]


async def _ours(dsn: str, keys: int) -> float:
    """Seconds from waking the worker until every key is active."""
    with tempfile.TemporaryDirectory() as directory:
        async with node_harness(dsn, Path(directory)) as harness:
            await _fill(harness, keys)
            await harness.node(NODE, wakes=())
            worker = Activation(interval=NEVER, start_jitter=(NEVER, NEVER), page_size=PAGE, budget=15.0)
            done = trio.Event()
            left = keys

            def note(event: object) -> None:
                nonlocal left
                if type(event).__name__ == "KeySettled":
                    left -= 1
                    if left == 0:
                        done.set()

            unsubscribe = harness.pool.system.services.events.subscribe(note)
            began = time.perf_counter()
            await harness.pool.system.start(worker, name="activation")
            with trio.fail_after(300):
                await done.wait()
            seconds = time.perf_counter() - began
            unsubscribe()
            active = await harness.value("SELECT count(*) FROM vpn_keys WHERE activation_status = 'active'")
            assert active == keys, f"{active} of {keys} keys are active"
    return seconds


async def _fill(harness: NodeHarness, keys: int) -> None:
    await harness.pool.pool.run("fill", execute_script, FILL.format(count=keys), hold=120.0)


def _pgbench(cluster: Cluster, dsn: str, keys: int) -> float:
    """Seconds a key: claiming in pages as the worker does, then confirming on every connection; connecting is left out."""
    claim, confirm = trio.run(_record, dsn, keys)
    seconds = _run_script(cluster, dsn, claim, clients=1, transactions=-(-keys // PAGE))
    seconds += _run_script(cluster, dsn, confirm, clients=CONNECTIONS, transactions=keys // CONNECTIONS)
    active = trio.run(_active, dsn)
    assert active == keys // CONNECTIONS * CONNECTIONS, f"pgbench activated {active} of {keys} keys"
    return seconds / active


def _run_script(cluster: Cluster, dsn: str, script: str, *, clients: int, transactions: int) -> float:
    """Seconds for all transactions. Raises RuntimeError with pgbench's own words if it failed."""
    done = subprocess.run(
        [
            *(
                str(Path(cluster.binaries) / "pgbench"),
                "--no-vacuum",
                "--protocol=prepared",
                "--file=-",
                "--define=n=0",
            ),
            *(f"--client={clients}", "--jobs=1", f"--transactions={transactions}", dsn),
        ],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    found = _TPS.search(done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"pgbench ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return clients * transactions / float(found[1])


class _Undo(Exception):
    """Ends a recorded transaction: nothing of it stays."""


@attrs.frozen
class _Recorder:
    """A transaction that keeps what is asked of it."""

    tx: Tx
    said: list[tuple[str, tuple[object, ...]]] = attrs.field(factory=list)

    async def fetch(self, query: str, /, *args: object) -> Sequence[Row]:
        self.said.append((query, args))
        return await self.tx.fetch(query, *args)

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        self.said.append((query, args))
        return await self.tx.fetchrow(query, *args)

    async def fetchval(self, query: str, /, *args: object) -> Any:
        self.said.append((query, args))
        return await self.tx.fetchval(query, *args)

    async def execute(self, query: str, /, *args: object) -> str:
        self.said.append((query, args))
        return await self.tx.execute(query, *args)


async def _record(dsn: str, keys: int) -> tuple[str, str]:
    """Fill the database; the scripts of a claim and of a confirmation, as pgbench reads them."""
    scripts = []

    async def look(tx: Tx) -> None:
        claims = _Recorder(tx)
        # The last of the page: its id is that of its customer and of nothing else here (the first one's is 1).
        last = (await claim_activations(claims, Claimer(_NAME, 1), PAGE, 600.0))[-1]
        confirmation = _Recorder(tx)
        await confirm_activation(confirmation, last, [NodeConfirmation(NODE)])
        scripts.append(_script(claims.said, None))
        scripts.append(_script(confirmation.said, last.key_row))
        raise _Undo

    async with open_session(dsn, "atlas/benchmark") as session:
        await session.run("node", _add_node, within=30.0)
        await session.run("fill", execute_script, FILL.format(count=keys), within=120.0)
        with contextlib.suppress(_Undo):
            await session.run("record", look, within=30.0)
    return scripts[0], scripts[1]


def _script(said: Sequence[tuple[str, tuple[object, ...]]], row: int | None) -> str:
    """One transaction. What was the recorded key's is each client's next key: ids run from 1 and are dealt out in turn."""
    lines = [] if row is None else [f"\\set row :n * {CONNECTIONS} + :client_id + 1", "\\set n :n + 1"]
    for query, args in (("BEGIN", ()), *said, ("COMMIT", ())):
        text = " ".join(_COMMENT.sub("", query).split())
        lines.append(_PARAMETER.sub(lambda found, args=args: _literal(args[int(found[1]) - 1], row), text) + ";")  # type: ignore[misc]
    return "\n".join([*lines, ""])


def _literal(value: object, row: int | None) -> str:
    """A parameter as SQL text."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return ":row" if value == row and row is not None else str(value)
    if isinstance(value, timedelta):
        return f"interval '{value.total_seconds()} seconds'"
    if isinstance(value, datetime):
        return f"timestamptz '{value.isoformat()}'"
    if isinstance(value, list):
        return f"ARRAY[{', '.join(_literal(each, row) for each in value)}]"
    assert isinstance(value, str), f"no literal for {value!r}"
    if row is not None and value == f"key:{row}":
        return "'key:' || :row"
    return "'" + value.replace("'", "''") + "'"


async def _add_node(tx: Tx) -> None:
    await register_node(tx, NODE, {"host": "127.0.0.1", "port": 1}, inbounds=["vless"])


async def _active(dsn: str) -> int:
    async def count(tx: Tx) -> int:
        found: int = await tx.fetchval("SELECT count(*) FROM vpn_keys WHERE activation_status = 'active'")
        return found

    async with open_session(dsn, "atlas/benchmark") as session:
        return await session.run("count", count)
