"""The desk's page of pools: who holds connections and since when, who waits, how long waits were, and what can be done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import trio

from actors.pool.control import pool_reports, pool_states
from runtime.desk import (
    Action,
    Addition,
    Button,
    Desk,
    Field,
    Need,
    Page,
    Parts,
    Question,
    Row,
    Source,
    View,
    run_command,
)
from runtime.operators import Role, least_role
from runtime.wording import duration

_TEMPLATES: Final = "actors.desk"
_LISTED: Final = 50
"""Holders and waiters that a page names."""
_Verb = Literal["pause", "resume", "expire", "resize", "revoke"]


def pools_addition(desk: Desk) -> Addition:
    """The page, its actions, and a need for each pool that does not serve."""

    def render(language: str) -> Parts:
        reports = [_shown(report) for report in pool_reports(desk.system.registry)]
        return {"pools": desk.render(f"{_TEMPLATES}:parts/pools.html", language, reports=reports, listed=_LISTED)}

    source = Source("pools", render)
    return Addition(
        pages=(Page("/pools", "Pools", f"{_TEMPLATES}:pools.html", sources=lambda _view: (source,)),),
        actions=tuple(_action(desk, verb) for verb in ("pause", "resume", "expire", "resize", "revoke")),
        needs=lambda: _needs(desk),
        facts=lambda: _facts(desk),
        templates=_TEMPLATES,
        words=_WORDS,
    )


def _shown(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report with its waits added up over labels, and what can be done."""
    name = str(report["pool"])
    if "holders" not in report:
        return {**report, "is_up": False, "buttons": []}
    waits: dict[float, int] = {}
    for series in report["waits"]:
        for bucket in series["buckets"]:
            bound = math.inf if bucket["le"] is None else bucket["le"]
            waits[bound] = waits.get(bound, 0) + bucket["count"]
    buckets = [(None if math.isinf(bound) else bound, count) for bound, count in sorted(waits.items())]
    verbs: list[_Verb] = ["resume" if report["paused"] else "pause", "expire", "resize"]
    return {
        **report,
        "is_up": True,
        "buckets": buckets,
        "waited": sum(waits.values()),
        "within": _quantile(buckets, 0.95),
        "buttons": [_button(verb, name) for verb in verbs],
        "holders": [
            {**holder, "button": _button("revoke", name, owner=str(holder["owner"]).partition("#")[0])}
            for holder in report["holders"][:_LISTED]
        ],
        "left_out": max(0, len(report["holders"]) - _LISTED),
        "shed": sum(report["refused"].values()),
    }


def _quantile(buckets: Sequence[tuple[float | None, int]], share: float) -> str:
    rank, seen = share * sum(count for _, count in buckets), 0
    for bound, count in buckets:
        seen += count
        if rank and seen >= rank:
            return "> 60 s" if bound is None else f"≤ {duration(bound)}"
    return "–"


def _needs(desk: Desk) -> list[Need]:
    return [
        Need(
            str(state["pool"]),
            f"{state['state']}: {state['cause']}" if state.get("cause") else str(state["state"]),
            hurt="Nothing that needs the database goes on.",
            href="/pools",
        )
        for state in pool_states(desk.system.registry)
        if state["state"] == "down"
    ]


def _facts(desk: Desk) -> list[Row]:
    return [
        Row(
            str(state["pool"]),
            f"{state['state']}, {state.get('leased', 0)} / {state.get('size', 0)}",
            state["state"] != "up",
            "/pools",
        )
        for state in pool_states(desk.system.registry)
    ]


def _least(verb: str) -> Role:
    return least_role(f"pool {verb}") or Role.OWNER


def _button(verb: _Verb, pool: str, **given: str) -> Button:
    return Button(f"pool-{verb}", _LABELS[verb], _least(verb), {"name": pool, **given})


def _action(desk: Desk, verb: _Verb) -> Action:
    async def ask(view: View, given: Mapping[str, str]) -> Question:
        await trio.lowlevel.checkpoint()
        (report,) = pool_reports(desk.system.registry, given.get("name", ""))
        text = view.t(_WHAT_FOLLOWS[verb])
        if verb == "resize":
            return Question(text, (Field("size", "Connections", "number", str(report.get("size", 1))),))
        if verb == "revoke":
            return Question(f"{text} {view.t('Whose:')} {given.get('owner', '')}")
        return Question(text)

    async def act(view: View, given: Mapping[str, str], why: str) -> str:
        pool = given.get("name", "")
        wanted: dict[str, object] = {"pool": pool, "action": verb}
        if verb == "resize":
            size = given.get("size", "")
            wanted["size"] = int(size) if size.isascii() and size.isdigit() and len(size) < 6 else size
        if verb == "revoke":
            wanted["owner"] = given.get("owner", "")
        done: Any = await run_command(view.desk, view.who, "pool", wanted, why)
        said = {"resize": f"{done['size']}", "revoke": f"{done['revoked']}"}.get(verb, "")
        return f"{pool}: {view.t(_DONE[verb])} {said}".rstrip()

    return Action(f"pool-{verb}", _LABELS[verb], _least(verb), ask, act, is_dangerous=verb in ("revoke", "pause"))


_LABELS: Final[Mapping[_Verb, str]] = {
    "pause": "Pause the pool",
    "resume": "Resume the pool",
    "expire": "Replace connections",
    "resize": "Resize",
    "revoke": "Take away",
}
_WHAT_FOLLOWS: Final[Mapping[_Verb, str]] = {
    "pause": "Nobody is given a connection until the pool is resumed; holders go on. Work that needs the database waits.",
    "resume": "Those who wait are given connections again.",
    "expire": "Each connection is closed when it comes back, and a new one is opened in its place.",
    "resize": "The pool keeps so many connections until its next restart; the setting is not changed.",
    "revoke": "The leases of this actor end at once: its transactions roll back, and it is told.",
}
_DONE: Final[Mapping[_Verb, str]] = {
    "pause": "paused",
    "resume": "resumed",
    "expire": "connections are replaced as they come back",
    "resize": "connections:",
    "revoke": "leases taken away:",
}
_WORDS: Final = {
    "Pools": "Пулы",
    "Pause the pool": "Приостановить пул",
    "Resume the pool": "Продолжить пул",
    "Replace connections": "Заменить соединения",
    "Resize": "Изменить размер",
    "Take away": "Отобрать",
    "Connections": "Соединений",
    "Whose:": "Чьи:",
    _WHAT_FOLLOWS["pause"]: "Никто не получит соединения, пока пул не продолжат; держатели работают. Остальное ждёт.",
    _WHAT_FOLLOWS["resume"]: "Ожидающие снова получат соединения.",
    _WHAT_FOLLOWS["expire"]: "Каждое соединение закроется, когда вернётся, и вместо него откроется новое.",
    _WHAT_FOLLOWS["resize"]: "Столько соединений пул держит до своего перезапуска; настройка не меняется.",
    _WHAT_FOLLOWS["revoke"]: "Соединения этого актора отбираются сразу, его транзакции откатываются.",
    "connections are replaced as they come back": "соединения заменяются по мере возврата",
    "connections:": "соединений:",
    "leases taken away:": "отобрано:",
    "no pool runs": "пулов нет",
    "in use": "занято",
    "idle connections": "свободно",
    "quarantined": "на проверке",
    "being opened": "открывается",
    "waits, 95 %": "ожидание, 95 %",
    "refused or shed": "отказов",
    "Holders": "Держатели",
    "nobody holds a connection": "соединений никто не держит",
    "Waiting": "Ждут",
    "held for": "держит",
    "waited": "ждёт",
    "owner of the lease": "кто",
    "for what": "для чего",
    "line": "строка",
    "stack": "стек",
    "How long waits were": "Сколько ждали",
    "slow since": "медленно",
    "not running": "не работает",
}
