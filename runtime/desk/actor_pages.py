"""The tree of actors, and a page for each: what operators see of them and do to them."""

from __future__ import annotations

import enum
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import outcome as outcomes
import trio

from runtime.config.operators import Role
from runtime.control.command import COMMANDS, ControlCall, Operator, check_arguments, find_command
from runtime.desk.bands import band_of, bands_source
from runtime.desk.board import Source
from runtime.desk.page import Action, Addition, Button, NotFound, Page, Question, View
from runtime.desk.wording import said_of, short
from runtime.operations.operations import OperationRefused
from runtime.operations.signs import circle_of, sign_of
from runtime.operators.identity import Identity, demand
from runtime.operators.least_roles import least_role, least_role_of_call
from runtime.redaction import redact

if TYPE_CHECKING:
    from runtime.desk.desk import Desk

MANY: Final = 60
"""Actors above which the tree is drawn as cells."""
_PARTS: Final = ("sign", "now", "settings", "stack", "inside", "crash", "events")
_CONTROLS: Final = ("restart", "pause", "resume", "drain", "stop", "kill")


@attrs.frozen
class DeskOperator(Operator):
    """An operator at the desk, and why."""

    why: str = ""

    def __str__(self) -> str:
        """As errors and events of the runtime name who did it."""
        name = "an operator" if self.identity is None else f"{self.identity.name} ({self.identity.role})"
        return f"{name} at the desk{f': {self.why}' if self.why else ''}"


async def run_command(desk: Desk, who: Identity, name: str, given: Mapping[str, object], why: str) -> object:
    """Run a command of the control socket for somebody at the desk: the same that `atlas` runs, held to the same role.

    Raises NotAllowed, ControlError for arguments that make no sense, and what the command raises.
    """
    command = find_command(COMMANDS, name)
    demand(who, least_role_of_call(name, given), f"`{name}`")
    call = ControlCall(desk.system, DeskOperator(os.getpid(), os.getuid(), who, why), _no_items)
    checked = check_arguments(command, given)
    outcome: list[outcomes.Outcome[object]] = []
    is_done = trio.Event()

    async def run() -> None:
        outcome.append(await outcomes.acapture(command.run, call, checked))
        is_done.set()

    start_soon = next((one.start_soon for one in desk.system.addresses.values() if one.start_soon is not None), None)
    if start_soon is None:
        return await command.run(call, checked)
    # Not in this task: the actor that is restarted may be the one that serves the desk, and with it this request.
    start_soon(run)
    await is_done.wait()
    return outcome[0].unwrap()


async def _no_items(_item: object) -> None:
    await trio.lowlevel.checkpoint()


def addition(desk: Desk) -> Addition:
    """The pages and the actions of actors."""
    tree, bands = tree_source(desk), bands_source(desk)

    async def tree_context(_view: View) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return tree_layout(desk)

    async def actor_context(view: View) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        name = view.request.path_params["name"]
        try:
            found = desk.system.operations.inspect(name)
        except OperationRefused as error:
            raise NotFound(str(error)) from error
        return {"name": name, "title": name, "buttons": _buttons(name, paused=bool(found["paused"])), "found": found}

    def actor_sources(view: View) -> Sequence[Source]:
        return (actor_source(desk, view.request.path_params["name"]),)

    return Addition(
        pages=(
            Page("/tree", "Tree", "tree.html", context=tree_context, sources=lambda _view: (tree, bands)),
            Page(
                "/actors/{name}", "Actor", "actor.html", context=actor_context, sources=actor_sources, is_in_menu=False
            ),
        ),
        actions=tuple(_action(desk, name) for name in _CONTROLS),
    )


def tree_layout(desk: Desk) -> Mapping[str, object]:
    """The groups with their actors: what the tree is drawn of."""
    status = desk.system.operations.status()
    children: Any = status["children"]
    groups: dict[str, list[str]] = {}
    for child in children:
        if child["kind"] == "actor":
            groups.setdefault(child["group"] or str(status["name"]), []).append(child["name"])
    return {
        "groups": groups,
        "is_large": sum(map(len, groups.values())) > MANY,
        "counted": sum(map(len, groups.values())),
    }


def tree_source(desk: Desk) -> Source:
    """A part for each actor, and one that counts them."""

    def render(language: str) -> Mapping[str, str]:
        status = desk.system.operations.status()
        children: Any = [child for child in status["children"] if child["kind"] == "actor"]  # type: ignore[attr-defined]
        circle = circle_of(children)
        is_large = len(children) > MANY
        signs = {child["name"]: sign_of(child, circle) for child in children}
        template = "parts/cell.html" if is_large else "parts/row.html"
        module = desk.module(template, language)
        parts = {f"a-{child['name']}": module(child, signs[child["name"]]) for child in children}
        words: dict[str, int] = {}
        for sign in signs.values():
            words[sign.word] = words.get(sign.word, 0) + 1
        worst = [child for child in children if signs[child["name"]].is_wrong][:12]
        parts["tree-counts"] = desk.render("parts/counts.html", language, words=words, worst=worst, signs=signs)
        return parts

    return Source("tree", render)


def words_of(desk: Desk) -> Mapping[str, str]:
    """The state of each actor, in a word."""
    status: Any = desk.system.operations.status()
    children = [child for child in status["children"] if child["kind"] == "actor"]
    circle = circle_of(children)
    return {str(child["name"]): sign_of(child, circle).word for child in children}


def actor_source(desk: Desk, name: str) -> Source:
    """The parts of an actor's page."""

    def render(language: str) -> Mapping[str, str]:
        found: Mapping[str, Any] = desk.system.operations.inspect(name)
        now = time.time()
        events = [record for record in desk.system.services.events.records() if record.event.actor == name][-20:]
        context = {
            "one": found,
            "sign": sign_of(found),
            "now": now,
            "crashes": [report.as_dict() for report in desk.system.operations.crashes(name)][::-1],
            "events": [(record, said_of(record)) for record in reversed(events)],
            "short": short,
            "state_text": json.dumps(found.get("actor", {}), indent=2, ensure_ascii=False, default=str),
            "settings": settings_of(desk, name),
            "hour": band_of(desk, name, language),
        }
        module = desk.macros("parts/actor.html", language)
        return {f"actor-{part}": getattr(module, f"{part}_part")(**context) for part in _PARTS}

    return Source(f"actor:{name}", render)


def settings_of(desk: Desk, name: str) -> list[tuple[str, str]]:
    """The settings under which an actor runs; none for a group."""
    plan = desk.system.plans.get(name)
    if plan is None:
        return []
    shown: list[tuple[str, str]] = []
    for field in attrs.fields(type(plan.table)):
        value = getattr(plan.table, field.name)
        if field.repr and value is not None and field.name not in ("actor", "needs"):
            shown += [(f"{field.name}{part}", text) for part, text in _plain(value)]
    return shown


def _plain(value: object) -> list[tuple[str, str]]:
    """A setting's value as text; of one that has parts, each with the part's name, as in `.initial`."""
    kind: Any = type(value)
    if attrs.has(kind):
        value = {field.name: getattr(value, field.name) for field in attrs.fields(kind) if field.repr}
    if isinstance(value, Mapping):
        return [(f".{name}", _text(part)) for name, part in value.items()]
    return [("", _text(value))]


def _text(value: object) -> str:
    return redact(str(value.value if isinstance(value, enum.Enum) else value))


def _buttons(name: str, *, paused: bool) -> list[Button]:
    wanted = ["restart", "resume" if paused else "pause", "drain", "stop", "kill"]
    return [Button(one, _LABELS[one], least_of(one), {"name": name}) for one in wanted]


_LABELS: Final = {
    "restart": "Restart",
    "pause": "Pause",
    "resume": "Resume",
    "drain": "Drain",
    "stop": "Stop",
    "kill": "Kill",
}
_WHAT_FOLLOWS: Final = {
    "restart": "It finishes its current message, stops in order, and starts again. What waits in its mailbox is kept.",
    "pause": "It serves nothing but control messages until it is resumed, also over restarts. Messages wait in its mailbox.",
    "resume": "It goes on with what waits in its mailbox.",
    "drain": "It handles what its mailbox has accepted, as far as half of its time to stop reaches, and stays down until it is "
    "restarted. New messages are refused.",
    "stop": "It finishes its current message and stays down until it is restarted.",
    "kill": "It is interrupted at its next checkpoint. Its restart policy decides what follows; no restart attempt is counted.",
}


def _action(desk: Desk, name: str) -> Action:
    async def ask(view: View, given: Mapping[str, str]) -> Question:
        await trio.lowlevel.checkpoint()
        found: Mapping[str, Any] = desk.system.operations.inspect(given.get("name", ""))
        waits = f" {view.t('Messages that wait now:')} {found['depth']}." if found["depth"] else ""
        members = found.get("children")
        all_of = f" {view.t('It is a group; this is for all its actors:')} {', '.join(members)}." if members else ""
        return Question(view.t(_WHAT_FOLLOWS[name]) + waits + all_of)

    async def act(view: View, given: Mapping[str, str], why: str) -> str:
        target = given.get("name", "")
        await run_command(desk, view.who, name, {"name": target}, why)
        return f"{target}: {view.t(_DONE[name])}"

    return Action(name, _LABELS[name], least_of(name), ask, act, is_dangerous=name in ("kill", "stop", "drain"))


_DONE: Final = {
    "restart": "restarted",
    "pause": "paused",
    "resume": "resumed",
    "drain": "drained and stopped",
    "stop": "stopped",
    "kill": "killed",
}


def least_of(command: str) -> Role:
    """The least role for a command; the owner's where none is asked for."""
    return least_role(command) or Role.OWNER
