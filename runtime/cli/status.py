"""`atlas status`."""

from __future__ import annotations

from typing import Any

import click

from runtime.cli.options import call_control, control_options, json_option
from runtime.cli.output import emit, table


@click.command
@control_options
@json_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show the running system: every child, its state, mailbox and facts."""
    found = call_control(ctx, "status")
    emit(found, as_json, lambda: render(found))


def render(found: dict[str, Any]) -> str:
    """The document for people."""
    from runtime.wording import duration  # keeps `atlas --help` fast

    rows = []
    for child in found["children"]:
        doing = ""
        if child["handling"]:
            doing = f"{child['handling']} for {duration(child['handling_for'] or 0.0)}"
        elif child["next_start"] is not None:
            doing = f"starts in {duration(child['next_start'])}"
        notes = [f"{key} {value}" for key, value in child["facts"].items() if key != "next"]
        if child["reason"]:
            notes.append(child["reason"])
        elif not child["ready"]:
            notes.append(f"not ready: {child['why_not_ready']}")
        rows.append(
            (
                "  " * child["depth_in_tree"] + child["name"],
                child["state"],
                duration(child["since"]),
                child["incarnation"],
                child["restarts"],
                f"{child['depth']}/{child['capacity']}" if child["kind"] == "actor" else "",
                doing,
                "; ".join(notes),
            )
        )
    ready = "ready" if found["ready"] else f"not ready ({', '.join(found['not_ready']) or found['state']})"
    head = f"{found['name']} {found['state']}, {ready}, pid {found['pid']}, for {duration(found['uptime'])}"
    lines = [head, "", table(("child", "state", "for", "inc", "restarts", "mailbox", "doing", "facts"), rows)]
    lines.append(_beats(found["beats"]))
    if found["unstopped"]:
        lines.append(f"unstopped: {', '.join(found['unstopped'])}")
    if found["dead_letters"]:
        lines.append(f"dead letters: {found['dead_letters']} (`atlas deadletters`)")
    return "\n".join(lines)


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
