"""The runtime's own commands on the control socket. Importing this module adds them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio

from runtime.control.command import ControlCall, NoArguments, control_command
from runtime.events import EventRecord
from runtime.log import logs
from runtime.log.record import Record, as_json, as_text
from runtime.operations import messages
from runtime.operations.events import ReloadRefused
from runtime.redaction import one_line, redact

_LOOK_AGAIN: Final = 0.2
"""Seconds between two looks for what a follower of the log has not got."""


@attrs.frozen
class Name:
    """An actor's name."""

    name: str


@attrs.frozen
class KillArguments:
    """The actor's name, and optionally the failpoint (`at`) and its visit (`nth`)."""

    name: str
    at: str | None = None
    nth: int = attrs.field(default=1, validator=attrs.validators.ge(1))


@attrs.frozen
class MaybeName:
    """An actor's name, or none for the whole system."""

    name: str | None = None


@attrs.frozen
class Recent:
    """How many of the latest, and of which actor (all if None)."""

    limit: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    name: str | None = None


@attrs.frozen
class EventArguments:
    """How many of the latest, of which actor (all if None), and whether to follow."""

    limit: int = attrs.field(default=50, validator=attrs.validators.ge(0))
    name: str | None = None
    follow: bool = False


@attrs.frozen
class LogArguments(EventArguments):
    """As for events, and the least level: debug, info, warning, error or critical."""

    level: str = attrs.field(default="debug", validator=attrs.validators.in_(logs.LEVELS))


@attrs.frozen
class TellArguments:
    """The actor's name, the message's type, and its fields."""

    name: str
    message: str
    fields: dict[str, Any] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class AskArguments(TellArguments):
    """As for tell, and how many seconds the reply may take."""

    within: float = attrs.field(
        default=5.0, validator=attrs.validators.and_(attrs.validators.gt(0.0), attrs.validators.le(600.0))
    )


@control_command("status", NoArguments, changes=False)
async def status(call: ControlCall, _arguments: NoArguments) -> object:
    """The system and its children."""
    return call.system.operations.status()


@control_command("inspect", Name, changes=False)
async def inspect(call: ControlCall, arguments: Name) -> object:
    """All that is known of one actor."""
    return call.system.operations.inspect(arguments.name)


@control_command("kill", KillArguments)
async def kill(call: ControlCall, arguments: KillArguments) -> object:
    """Interrupt an actor now, or make it crash at a failpoint."""
    if arguments.at is None:
        call.system.operations.kill(arguments.name, f"killed by {call.caller}")
        return {"name": arguments.name, "killed": True}
    call.system.operations.arm(arguments.name, arguments.at, arguments.nth)
    return {"name": arguments.name, "armed": arguments.at, "nth": arguments.nth}


@control_command("restart", Name)
async def restart(call: ControlCall, arguments: Name) -> object:
    """Stop in order and start again."""
    return {"name": arguments.name, "incarnation": await call.system.operations.restart(arguments.name)}


@control_command("start", Name)
async def start(call: ControlCall, arguments: Name) -> object:
    """Start what is stopped or parked."""
    incarnation, changed = await call.system.operations.start(arguments.name)
    return {"name": arguments.name, "incarnation": incarnation, "changed": changed}


@control_command("stop", MaybeName)
async def stop(call: ControlCall, arguments: MaybeName) -> object:
    """Stop one actor, or the whole system."""
    if arguments.name is None:
        call.system.stop(f"asked by {call.caller}")
        return {"stopping": call.system.name, "within": call.system.config.supervisor.shutdown_budget}
    await call.system.operations.stop(arguments.name)
    return {"name": arguments.name, "stopped": True}


@control_command("drain", MaybeName)
async def drain(call: ControlCall, arguments: MaybeName) -> object:
    """Drain and stop one actor, or the whole system."""
    if arguments.name is None:
        call.system.stop(f"drain asked by {call.caller}", drain=True)
        return {"stopping": call.system.name, "within": call.system.config.supervisor.shutdown_budget}
    await call.system.operations.drain(arguments.name)
    return {"name": arguments.name, "drained": True}


@control_command("pause", Name)
async def pause(call: ControlCall, arguments: Name) -> object:
    """Serve only control messages until resumed."""
    call.system.operations.pause(arguments.name)
    return {"name": arguments.name, "paused": True}


@control_command("resume", Name)
async def resume(call: ControlCall, arguments: Name) -> object:
    """Undo pause."""
    outcome = call.system.operations.resume(arguments.name)
    answer: dict[str, object] = {"name": arguments.name, "paused": False}
    if outcome.not_paused:
        answer["not_paused"] = outcome.not_paused
    if outcome.not_running:
        answer["not_running"] = outcome.not_running
    return answer


@control_command("reload", NoArguments)
async def reload(call: ControlCall, _arguments: NoArguments) -> object:
    """Read the configuration again, as SIGHUP does."""
    outcome = call.system.reloader.reload(f"asked by {call.caller}")
    return {"refused": outcome.errors} if isinstance(outcome, ReloadRefused) else outcome


@control_command("crashes", Recent, changes=False)
async def crashes(call: ControlCall, arguments: Recent) -> object:
    """The crash reports of an actor or a group, or of all, oldest first."""
    found = call.system.operations.crashes(arguments.name)
    return {
        "total": len(found),
        "crashes": [report.as_dict() for report in found[max(0, len(found) - arguments.limit) :]],
    }


@control_command("deadletters", Recent, changes=False)
async def deadletters(call: ControlCall, arguments: Recent) -> object:
    """Messages that were not handled."""
    letters = call.system.services.deadletters
    found = [letter for letter in letters.recent() if arguments.name in (None, letter.actor)]
    counts = [
        {"actor": actor, "message": message, "count": count}
        for (actor, message), count in sorted(letters.counts().items())
        if arguments.name in (None, actor)
    ]
    return {"total": letters.total, "counts": counts, "recent": found[-arguments.limit :] if arguments.limit else []}


@control_command("tell", TellArguments)
async def tell(call: ControlCall, arguments: TellArguments) -> object:
    """Tell an actor a message."""
    told = messages.tell(call.system.operations, arguments.name, arguments.message, arguments.fields)
    return {"name": arguments.name, "message": arguments.message, "delivery": told}


@control_command("ask", AskArguments)
async def ask(call: ControlCall, arguments: AskArguments) -> object:
    """Ask an actor, and answer what it replies."""
    operations = call.system.operations
    return await messages.ask(operations, arguments.name, arguments.message, arguments.fields, arguments.within)


@control_command("failpoints", NoArguments, changes=False)
async def failpoints(call: ControlCall, _arguments: NoArguments) -> object:
    """What is armed and what was visited."""
    return {"allowed": call.system.config.chaos.failpoints, "points": call.system.services.failpoints.report()}


@control_command("disarm", NoArguments)
async def disarm(call: ControlCall, arguments: NoArguments) -> object:
    """Take back everything that is armed."""
    call.system.services.failpoints.disarm()
    return await failpoints(call, arguments)


@control_command("events", EventArguments, streams=True, changes=False)
async def events(call: ControlCall, arguments: EventArguments) -> object:
    """The latest events, and with `follow` those that come. A client that reads too slowly loses some and sees the gap."""
    bus = call.system.services.events
    everything = bus.records()
    records = [record for record in everything if arguments.name in (None, record.event.actor)]
    news: trio.MemoryReceiveChannel[None]
    wakeup, news = trio.open_memory_channel[None](1)

    def wake(_event: object) -> None:
        with contextlib.suppress(trio.WouldBlock):
            wakeup.send_nowait(None)

    unsubscribe = bus.subscribe(wake) if arguments.follow else None
    try:
        last = everything[-1].sequence if everything else 0
        for record in records[-arguments.limit :] if arguments.limit else []:
            await call.item(as_item(record))
        while arguments.follow:
            await news.receive()
            for record in bus.records():
                if record.sequence > last:
                    last = record.sequence
                    if arguments.name in (None, record.event.actor):
                        await call.item(as_item(record))
    finally:
        if unsubscribe is not None:
            unsubscribe()
    return None


def as_item(record: EventRecord) -> Mapping[str, object]:
    """An event as one object."""
    event = record.event
    return {
        "sequence": record.sequence,
        "at": record.at,
        "level": event.level,
        "kind": record.kind,
        "actor": event.actor,
        "line": one_line(redact(event.line())),
        "correlation": record.correlation,
        "facts": record.facts,
    }


@control_command("log", LogArguments, streams=True, changes=False)
async def log(call: ControlCall, arguments: LogArguments) -> object:
    """The latest records of the log, and with `follow` those that come. A client that reads too slowly sees the gap."""
    least = logs.LEVELS[arguments.level]

    def since(last: int) -> list[tuple[int, Record]]:
        return [
            (number, record)
            for number, record in logs.recent()
            if number > last and record.level >= least and arguments.name in (None, record.actor)
        ]

    last = max((number for number, _ in logs.recent()), default=0)
    found = [(number, record) for number, record in since(0) if number <= last]
    if arguments.name is not None and not found:
        call.system.operations.address(arguments.name)  # refuses a name that no actor has
    for number, record in found[-arguments.limit :] if arguments.limit else []:
        await call.item(as_entry(number, record))
    while arguments.follow:
        # What is said comes from any thread, so no event of the loop tells of it.
        await trio.sleep(_LOOK_AGAIN)
        for number, record in since(last):
            last = number
            await call.item(as_entry(number, record))
    return None


def as_entry(number: int, record: Record) -> Mapping[str, object]:
    """A record of the log as one object: what the log's JSON has, its number, and the lines of its text."""
    entry: dict[str, object] = json.loads(as_json(record))
    return {"number": number, **entry, "text": as_text(record).rstrip("\n")}
