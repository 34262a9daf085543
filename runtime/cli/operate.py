"""`atlas kill`, `start`, `restart`, `stop`, `drain`, `pause`, `resume`, `reload`."""

from __future__ import annotations

import sys
from typing import Any

import click

from runtime.cli.options import (
    call_control,
    complete_actor,
    control_options,
    control_socket,
    control_timeout,
    json_option,
)
from runtime.cli.output import emit
from runtime.redaction import one_line

NAME = click.argument("name", shell_complete=complete_actor)
YES = click.option("--yes", "-y", is_flag=True, help="Without a name: do not ask first, as a terminal is asked.")
MAYBE_NAME = click.argument("name", required=False, shell_complete=complete_actor)


@click.command
@NAME
@click.option("--at", metavar="POINT", help="Crash it when it next comes to this failpoint, instead of now.")
@click.option("--nth", type=click.IntRange(min=1), help="With --at: at which visit, counted from now. Default: 1.")
@control_options
@json_option
@click.pass_context
def kill(ctx: click.Context, name: str, at: str | None, nth: int | None, *, as_json: bool) -> None:
    """Interrupt an actor at once; its supervisor decides what follows.

    Points: before:<Message>, after:<Message>, task:<name>, and what the actor itself names. They need [chaos] failpoints.
    """
    if nth is not None and at is None:
        raise click.UsageError("--nth counts the visits of a failpoint: name it with --at", ctx)
    found = call_control(ctx, "kill", name=name, at=at, nth=nth)
    emit(found, as_json, lambda: f"killed {name}" if at is None else f"{name} dies at visit {found['nth']} of {at}")


@click.command
@NAME
@control_options
@json_option
@click.pass_context
def start(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Start an actor that is stopped or parked. One that runs goes on, and nothing is changed."""
    found = call_control(ctx, "start", name=name)

    def render() -> str:
        if found["incarnation"] is None:
            return f"{name} declined to run"
        if not found["changed"]:
            return f"{name} runs already, incarnation {found['incarnation']}; nothing was changed"
        return f"{name} serves, incarnation {found['incarnation']}"

    emit(found, as_json, render)


@click.command
@NAME
@control_options
@json_option
@click.pass_context
def restart(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Stop an actor in order and start it again; also brings back a parked one."""
    found = call_control(ctx, "restart", name=name)

    def render() -> str:
        if found["incarnation"] is None:
            return f"{name} declined to run"
        return f"{name} serves, incarnation {found['incarnation']}"

    emit(found, as_json, render)


@click.command
@MAYBE_NAME
@click.option("--wait/--no-wait", default=True, help="Without a name: wait until the process has ended. Default: wait.")
@YES
@control_options
@json_option
@click.pass_context
def stop(ctx: click.Context, name: str | None, *, wait: bool, yes: bool, as_json: bool) -> None:
    """Stop an actor in order, or without a name the whole system. It finishes its current message."""
    _stop(ctx, "stop", name, wait=wait, yes=yes, as_json=as_json)


@click.command
@MAYBE_NAME
@click.option("--wait/--no-wait", default=True, help="Without a name: wait until the process has ended. Default: wait.")
@YES
@control_options
@json_option
@click.pass_context
def drain(ctx: click.Context, name: str | None, *, wait: bool, yes: bool, as_json: bool) -> None:
    """Stop an actor, or the whole system, after it has handled what it accepted."""
    _stop(ctx, "drain", name, wait=wait, yes=yes, as_json=as_json)


def _stop(ctx: click.Context, command: str, name: str | None, *, wait: bool, yes: bool, as_json: bool) -> None:
    if name is not None:
        found: Any = call_control(ctx, command, name=name)
        emit(found, as_json, lambda: f"{name} is stopped; `atlas start {name}` starts it")
        return
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        _ask_first(ctx, command)
    from runtime.control.socket import Holder  # keeps `atlas --help` fast

    # Known before it is asked: by the time that it has stopped, its successor may hold the lock.
    with Holder(control_socket(ctx)) as holder:
        found = call_control(ctx, command, name=name)
        if wait:
            holder.wait_until_gone(control_timeout(ctx, found["within"] + 10.0))
    emit(found | {"stopped": wait}, as_json, lambda: f"{found['stopping']} {'has stopped' if wait else 'is stopping'}")


def _ask_first(ctx: click.Context, command: str) -> None:
    """Somebody who meant one actor is not to end all of them by a name that he forgot. Raises click.Abort (130) for no."""
    found = call_control(ctx, "status")
    actors = sum(child["kind"] == "actor" for child in found["children"])
    what = "drain and stop" if command == "drain" else "stop"
    click.confirm(
        f"This will {what} the whole of {one_line(found['name'])}, {actors} actors, pid {found['pid']}. Go on?",
        abort=True,
        err=True,
    )


@click.command
@NAME
@control_options
@json_option
@click.pass_context
def pause(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Let an actor serve nothing until `atlas resume`; what is sent to it waits. Holds over restarts."""
    found = call_control(ctx, "pause", name=name)
    emit(found, as_json, lambda: f"{name} is paused; `atlas resume {name}` lets it go on")


@click.command
@NAME
@control_options
@json_option
@click.pass_context
def resume(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Let a paused actor go on."""
    found = call_control(ctx, "resume", name=name)

    def render() -> str:
        lines = [f"{each} was not paused" for each in found.get("not_paused", ())]
        down = found.get("not_running", {})
        lines += [
            f"{each} is paused no longer, and {state}: it does not go on; `atlas start {each}` starts it"
            for each, state in down.items()
        ]
        return "\n".join(lines) or f"{name} goes on"

    emit(found, as_json, render)


@click.command
@control_options
@json_option
@click.pass_context
def reload(ctx: click.Context, *, as_json: bool) -> None:
    """Read the configuration again: log, watchdog limits, operators and intervals change at once; the rest is listed."""
    found = call_control(ctx, "reload")
    if "refused" in found:
        from runtime.errors import ConfigError  # keeps `atlas --help` fast

        raise ConfigError(str(found["refused"]))

    def render() -> str:
        applied = ", ".join(found["applied"]) or "nothing"
        waiting = f"\nneeds a restart of the process: {', '.join(found['waiting'])}" if found["waiting"] else ""
        return f"applied: {applied}{waiting}"

    emit(found, as_json, render)
