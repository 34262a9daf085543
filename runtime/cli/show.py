"""`atlas status`, `inspect`, `crashes`, `deadletters`, `events`, `log`, `failpoints`: what operators see of a running system."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from runtime.cli.operators import operator_token
from runtime.cli.options import (
    call_control,
    complete_actor,
    control_config,
    control_options,
    control_socket,
    json_option,
)
from runtime.cli.output import Style, Styled, emit, emit_line, say, styled, table, wrapped
from runtime.exit_codes import ATTENTION
from runtime.redaction import one_line
from runtime.wording import moment


@click.command
@control_options
@json_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show the running system: every child, its state, mailbox and notes, and first what needs a human.

    Exit codes: 0 all is well, 1 something needs a human, 69 the system does not answer.
    """
    found = call_control(ctx, "status")
    emit(found, as_json, lambda: render(found))
    if found["attention"]:
        ctx.exit(ATTENTION)


def render(found: dict[str, Any]) -> str:
    """The document for people."""
    lines = [*heading(found), "", table(HEADERS, map(row_of, found["children"]), notes=True)]
    lines.append(wrapped(_beats(found["beats"]), "  "))
    if found["unstopped"]:
        lines.append(f"unstopped: {', '.join(found['unstopped'])}")
    if found["dead_letters"]:
        lines.append(f"dead letters: {found['dead_letters']} (`atlas deadletters`)")
    return "\n".join(lines)


LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_LEVEL_STYLES: Final[dict[str, Style]] = {"WARNING": "late", "ERROR": "wrong", "CRITICAL": "wrong", "DEBUG": "quiet"}

HEADERS: Final = ("child", "state", "for", "restarts", "mailbox", "notes")
"""The columns of `row_of`."""

_STYLES: Final[dict[str, Style]] = {
    **dict.fromkeys(("down", "parked", "unstopped", "restarting"), "wrong"),
    **dict.fromkeys(
        ("stuck", "starved", "waiting in a circle", "not ready", "starting", "stopping", "waiting"), "late"
    ),
    **dict.fromkeys(("paused", "not needed"), "quiet"),
    "busy": "good",
}


def heading(found: dict[str, Any]) -> list[str]:
    """The first lines: the state of everything, where it is, and what needs a human."""
    from runtime.wording import duration  # keeps `atlas --help` fast

    ready = "ready" if found["ready"] else f"not ready ({', '.join(found['not_ready']) or found['state']})"
    if found["degraded"]:
        ready += f", in trouble: {', '.join(found['degraded'])}"
    head = f"{found['name']} {found['state']}, {ready}, pid {found['pid']}, for {duration(found['uptime'])}"
    where = f"configuration {found['config'] or 'none'}, control socket {found['socket']}"
    lines = [wrapped(head, "  "), wrapped(where, "  ")]
    if found["attention"]:
        rows = [
            (
                one["name"],
                Styled(one["word"], _STYLES.get(one["word"], "late")),
                duration(one["seconds"]),
                one["why"],
            )
            for one in found["attention"]
        ]
        count = "one thing needs you" if len(rows) == 1 else f"{len(rows)} things need you"
        lines += ["", styled(f"{count}; `atlas inspect NAME` tells all of one", "strong")]
        lines.append(table(("what", "is", "for", "why"), rows, notes=True))
    return lines


def row_of(child: dict[str, Any]) -> tuple[object, ...]:
    """A child's row under `HEADERS`."""
    from runtime.wording import duration  # as above

    notes = []
    if child["handling"]:
        notes.append(f"{child['handling']} for {duration(child['handling_for'] or 0.0)}")
    elif child["next_start"] is not None:
        notes.append(f"starts in {duration(child['next_start'])}")
    notes += [f"{key} {value}" for key, value in child["facts"].items() if key != "next"]
    if child["reason"]:
        notes.append(child["reason"])
    elif not child["ready"]:
        notes.append(f"not ready: {child['why_not_ready']}")
    elif child["why_not_ready"]:
        notes.append(child["why_not_ready"])
    last = child["last_exit"]
    if last is not None and last["where"]:
        notes.append(f"last {last['reason'].replace('_', ' ')} at {last['where']}")
    style = _STYLES.get(child["word"])
    return (
        "  " * child["depth_in_tree"] + child["name"],
        child["word"] if style is None else Styled(child["word"], style),
        duration(child["since"]),
        child["restarts"] or "",
        f"{child['depth']}/{child['capacity']}" if child["kind"] == "actor" else "",
        "; ".join(notes),
    )


def _beats(beats: dict[str, Any]) -> str:
    from runtime.wording import duration  # as above

    def age(name: str) -> str:
        return "absent" if beats[name] is None else duration(beats[name])

    worker = age("worker")
    if beats["stalest_worker"]:
        worker += f" ({beats['stalest_worker']} is {beats['why_stale']})"
    left_out = ", ".join(f"{name} {state}" for name, state in beats["left_out"].items())
    return (
        f"beats: event_loop {age('event_loop')}, worker {worker}, healthcheck {age('healthcheck')}"
        f"{f'; left out: {left_out}' if left_out else ''}"
    )


@click.command
@click.argument("name", shell_complete=complete_actor)
@control_options
@json_option
@click.pass_context
def inspect(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Show all that is known of one actor; works while it is stuck."""
    found = call_control(ctx, "inspect", name=name)
    emit(found, as_json, lambda: "\n".join(_lines(found, "")))


def _lines(value: dict[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        elif isinstance(item, list) and item:
            lines += [f"{indent}{key}:", *(f"{indent}  {one_line(str(entry))}" for entry in item)]
        elif item not in (None, "", [], {}):
            lines.append(f"{indent}{one_line(f'{key}: {round(item, 3) if isinstance(item, float) else item}')}")
    return lines


@click.command
@click.argument("name", required=False, shell_complete=complete_actor)
@click.option(
    "--limit", "-n", type=click.IntRange(min=0), default=10, show_default=True, help="How many of the latest."
)
@control_options
@json_option
@click.pass_context
def crashes(ctx: click.Context, name: str | None, limit: int, *, as_json: bool) -> None:
    """Show how actors crashed: traceback, task, last message, state, and what followed. The last ten of each are kept."""
    found = call_control(ctx, "crashes", name=name, limit=limit)
    emit(found, as_json, lambda: "\n\n".join(map(_crash, found["crashes"])) or "no crashes")


def _crash(report: dict[str, Any]) -> str:
    from runtime.wording import duration  # keeps `atlas --help` fast

    follows = report["decision"].replace("_", " ")
    facts = [f"incarnation {report['incarnation']}", f"lived {duration(report['lived'])}", f"then {follows}"]
    if report["last_message"]:
        facts.insert(1, f"last message {report['last_message']}")
    if report["task"]:
        facts.insert(1, f"in its task {report['task']}")
    head = f"{moment(report['at'])}  {report['actor']} {report['reason'].replace('_', ' ')} ({', '.join(facts)})"
    lines = [f"{head}: {report['error']}" if report["error"] else head]
    if report["state"]:
        lines += ["state:", *_lines(report["state"], "  ")]
    lines += report["traceback"]
    return "\n    ".join(map(one_line, lines))


@click.command
@click.argument("name", required=False, shell_complete=complete_actor)
@click.option("--limit", "-n", type=click.IntRange(min=0), default=100, show_default=True, help="How many to show.")
@control_options
@json_option
@click.pass_context
def deadletters(ctx: click.Context, name: str | None, limit: int, *, as_json: bool) -> None:
    """Show messages that were not handled: types and reasons, never contents."""
    found = call_control(ctx, "deadletters", name=name, limit=limit)

    def render() -> str:
        rows = [
            (moment(letter["at"]), letter["actor"], letter["message"], letter["reason"]) for letter in found["recent"]
        ]
        shown = table(("at", "actor", "message", "reason"), rows)
        return f"{shown}\n{found['total']} in all" if shown else f"no dead letters to show, {found['total']} in all"

    emit(found, as_json, render)


@click.command
@click.argument("name", required=False, shell_complete=complete_actor)
@click.option(
    "--limit", "-n", type=click.IntRange(min=0), default=50, show_default=True, help="How many to begin with."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@control_options
@json_option
@click.pass_context
def events(ctx: click.Context, name: str | None, limit: int, *, follow: bool, as_json: bool) -> None:
    """Show the latest events, one a line; with --json one JSON object a line."""
    from runtime.control.client import stream  # keeps `atlas --help` fast

    token, config = operator_token(os.environ), control_config(ctx)
    for item in stream(
        control_socket(ctx), "events", token=token, config=config, name=name, limit=limit, follow=follow
    ):
        if as_json:
            emit_line(item)
        elif isinstance(item, dict):
            say(f"{moment(item['at'])}  {one_line(item['line'])}")


@click.command
@click.argument("name", required=False, shell_complete=complete_actor)
@click.option(
    "--limit", "-n", type=click.IntRange(min=0), default=50, show_default=True, help="How many to begin with."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--level", type=click.Choice(LEVELS), default="debug", help="Only those of this level or above.")
@control_options
@json_option
@click.pass_context
def log(ctx: click.Context, name: str | None, limit: int, level: str, *, follow: bool, as_json: bool) -> None:
    """Show the log of the running system, of all or of one actor, from its memory: the last 2000 records.

    What [log] level leaves out is not there. With --json one object a line, as the log's own JSON.
    """
    from runtime.control.client import stream  # keeps `atlas --help` fast

    token, config = operator_token(os.environ), control_config(ctx)
    for item in stream(
        control_socket(ctx), "log", token=token, config=config, name=name, limit=limit, follow=follow, level=level
    ):
        if not isinstance(item, dict):
            continue
        if as_json:
            emit_line({key: value for key, value in item.items() if key != "text"})
        else:
            style = _LEVEL_STYLES.get(str(item["level"]))
            first, *more = str(item["text"]).split("\n")
            say("\n".join([first if style is None else styled(one_line(first), style), *more]))


@click.command
@click.option("--disarm", is_flag=True, help="Take back everything that is armed.")
@control_options
@json_option
@click.pass_context
def failpoints(ctx: click.Context, *, disarm: bool, as_json: bool) -> None:
    """Show the failpoints that are armed or were visited (see `atlas kill --at`)."""
    found = call_control(ctx, "disarm" if disarm else "failpoints")

    def render() -> str:
        rows = [
            (point["actor"], point["point"], point["visited"], point["armed_for"], point["fired"])
            for point in found["points"]
        ]
        allowed = "allowed" if found["allowed"] else "not allowed ([chaos] failpoints = false)"
        shown = table(("actor", "point", "visited", "armed for visit", "fired"), rows) or "none armed or visited"
        return f"{shown}\narming is {allowed}"

    emit(found, as_json, render)
