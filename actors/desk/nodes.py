"""The desk's page of nodes: what each says of itself, live, and what the database wants of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from actors.nodes.canary import CANARY_PASSES
from actors.nodes.messages import node_names
from actors.nodes.trouble import CLOCK_SKEW
from actors.pool.client import Pool
from db.stories import read_nodes
from runtime.desk import Addition, Desk, Page, Parts, Row, Source, View

_TEMPLATES: Final = "actors.desk"
_WITHIN: Final = 5.0


def nodes_addition(desk: Desk, pool: Pool) -> Addition:
    """The page, and a fact for each node."""

    def render(language: str) -> Parts:
        return {"nodes": desk.render(f"{_TEMPLATES}:parts/nodes.html", language, nodes=_shown(desk))}

    async def context(_view: View) -> Mapping[str, object]:
        return {"standings": await pool.run("desk.nodes", read_nodes, within=_WITHIN, hold=_WITHIN)}

    source = Source("nodes", render)
    return Addition(
        pages=(Page("/nodes", "Nodes", f"{_TEMPLATES}:nodes.html", context=context, sources=lambda _view: (source,)),),
        facts=lambda: _facts(desk),
        templates=_TEMPLATES,
        words=_WORDS,
    )


def _shown(desk: Desk) -> Sequence[Mapping[str, Any]]:
    passes, skews = CANARY_PASSES.samples(), CLOCK_SKEW.samples()
    shown: list[Mapping[str, Any]] = []
    for name in node_names(desk.system.registry):
        address = desk.system.registry.find(f"node.{name}")
        seen: Mapping[str, Any] = address.inspect()
        said = seen["actor"]
        shown.append(
            {
                "name": name,
                "actor": address.name,
                "ready": seen["ready"],
                "why": seen["why_not_ready"],
                "facts": seen["facts"],
                "breaker": said.get("breaker"),
                "calls": said.get("calls", 0),
                "waiting": said.get("changes_waiting", 0),
                "conditions": said.get("conditions", {}),
                "canary": passes.get((name,)),
                "skew": skews.get((name,)),
            }
        )
    return shown


def _facts(desk: Desk) -> list[Row]:
    rows = []
    for name in node_names(desk.system.registry):
        address = desk.system.registry.find(f"node.{name}")
        is_ready, why = address.readiness
        keys = address.facts.get("keys")
        rows.append(Row(address.name, f"{keys or 0} keys" if is_ready else why, not is_ready, "/nodes"))
    return rows


_WORDS: Final = {
    "Nodes": "Узлы",
    "no node is configured": "узлов нет в конфигурации",
    "ready": "готов",
    "packets pass": "пакеты проходят",
    "packets do not pass": "пакеты не проходят",
    "no packets are sent": "пакеты не посылаются",
    "canary": "канарейка",
    "breaker": "предохранитель",
    "calls now": "вызовов сейчас",
    "changes that wait": "изменений ждёт",
    "clock ahead": "часы спешат на",
    "What the database wants": "Чего хочет база данных",
    "node": "узел",
    "takes keys": "принимает ключи",
    "keys wanted": "ключей нужно",
    "keys confirmed": "ключей подтверждено",
    "moved": "передано",
    "last seen": "последний раз виден",
    "retired": "снят",
    "yes": "да",
    "no": "нет",
}
