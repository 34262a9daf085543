"""Options and kinds of parameters that commands share, and what they stand for.

    @click.command
    @config_option
    @json_option
    @click.pass_context
    def leases(ctx: click.Context, as_json: bool) -> None: ...

What a parameter lets through is safe to send on; the rest is a usage error (64).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtime.cli.operators import operator_token

if TYPE_CHECKING:
    from runtime.config.config import Config


class Text(click.ParamType[str]):
    """Words of an operator: at most `longest` characters, nothing that is no text (NUL, broken UTF-8), and, unless said
    otherwise, not empty."""

    name = "text"

    def __init__(self, longest: int = 200, *, may_be_empty: bool = False) -> None:
        self.longest = longest
        self.may_be_empty = may_be_empty

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip() and not self.may_be_empty:
            self.fail("it is empty", param, ctx)
        if "\0" in text or not _is_unicode(text):
            self.fail("it holds characters that are no text", param, ctx)
        if len(text) > self.longest:
            self.fail(f"it has {len(text)} characters; at most {self.longest} are kept", param, ctx)
        return text


class Word(Text):
    """A text of a certain form; `form` describes it in an error."""

    name = "word"

    def __init__(self, pattern: re.Pattern[str], form: str) -> None:
        super().__init__()
        self._pattern = pattern
        self._form = form

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if self._pattern.fullmatch(text) is None:
            self.fail(f"{text!r} is not {self._form}", param, ctx)
        return text


class FilePath(click.Path):
    """A path that can be a file's: not empty, and no directory. Given to the command as a `pathlib.Path`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, readable=False)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A finite time from `least` to `most` seconds; unlike click's own range it lets no `nan` through."""

    name = "seconds"

    def __init__(self, least: float, most: float = 86_400.0) -> None:
        super().__init__(least, most)

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return seconds


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


F = TypeVar("F", bound=Callable[..., Any])

_CONFIG = "runtime.config"
_SOCKET = "runtime.socket"
_TIMEOUT = "runtime.timeout"


def _keep(key: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value is not None:
            ctx.meta[key] = value

    return callback


def config_option(command: F) -> F:
    """`--config FILE`; read it with `config_path(ctx)` or `load_config(ctx)`."""
    return click.option(
        "--config",
        "-c",
        type=click.Path(path_type=Path, readable=False),  # whether it is readable, reading it says
        metavar="FILE",
        expose_value=False,
        callback=_keep(_CONFIG),
        help="The configuration. Default: $ATLAS_CONFIG, ./supervisor.toml; in a checkout, the one there.",
    )(command)


def control_options(command: F) -> F:
    """`--config`, `--socket` and `--timeout`; use `call_control(ctx, …)`."""
    command = click.option(
        "--timeout",
        type=Seconds(0.1),
        metavar="SECONDS",
        expose_value=False,
        callback=_keep(_TIMEOUT),
        help="How long to wait for the answer. Default: 10.",
    )(command)
    command = click.option(
        "--socket",
        type=FilePath(),
        metavar="PATH",
        expose_value=False,
        callback=_keep(_SOCKET),
        help="The control socket. Default: the one that the configuration says.",
    )(command)
    return config_option(command)


def json_option(command: F) -> F:
    """`--json`, passed to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def config_path(ctx: click.Context) -> Path:
    """The configuration file that is meant. Raises ConfigError when there is none."""
    from runtime.config.loader import find_config  # keeps `atlas --help` fast

    given = ctx.meta.get(_CONFIG)
    return find_config(given if isinstance(given, Path) else None, os.environ)


def load_config(ctx: click.Context) -> Config:
    """The whole configuration, checked. Raises ConfigErrors (exit code 78)."""
    from runtime.config.loader import load  # as above

    return load(config_path(ctx))


def load_startable(ctx: click.Context) -> Config:
    """The whole configuration, and all that `atlas run` looks at before it starts anything: what this refuses, `run` and `check`
    refuse, in the same words. Raises ConfigError (exit code 78).
    """
    from runtime.control.socket import check_directory, socket_path  # as above

    config = load_config(ctx)
    check_directory(socket_path(config))
    return config


def load_sections(ctx: click.Context, *classes: type) -> Config:
    """The sections of these settings classes, checked, without importing any actor. Raises ConfigErrors (exit code 78)."""
    from runtime.config.loader import load_sections  # as above

    return load_sections(config_path(ctx), *classes)


def control_socket(ctx: click.Context) -> Path:
    """The control socket that is meant: `--socket`, else what the configuration says."""
    given = ctx.meta.get(_SOCKET)
    if isinstance(given, Path):
        return given
    from runtime.config.loader import load_control  # as above
    from runtime.control.socket import socket_path  # as above

    return socket_path(load_control(config_path(ctx)))


def control_config(ctx: click.Context) -> Path | None:
    """The configuration that the system must run: the one whose socket is used, or that was named; None if only a socket was."""
    if isinstance(ctx.meta.get(_SOCKET), Path) and not isinstance(ctx.meta.get(_CONFIG), Path):
        return None
    return config_path(ctx)


def call_control(ctx: click.Context, command: str, **arguments: object) -> Any:  # JSON, whatever it is
    """Run a command of the running system and return its result. Raises ControlError and its subclasses."""
    from runtime.control.client import TIMEOUT, call  # as above

    return call(
        control_socket(ctx),
        command,
        timeout=control_timeout(ctx, TIMEOUT),
        token=operator_token(os.environ),
        config=control_config(ctx),
        **arguments,
    )


def control_timeout(ctx: click.Context, default: float) -> float:
    """`--timeout`, else the default, in seconds."""
    given = ctx.meta.get(_TIMEOUT)
    return given if isinstance(given, float) else default


def complete_actor(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion: the names of the running actors, else the declared ones; none rather than an error."""
    from runtime.control.client import call  # as above
    from runtime.errors import AtlasError  # as above

    try:
        token, config = operator_token(os.environ), control_config(ctx)
        found = call(control_socket(ctx), "status", timeout=1.0, token=token, config=config)
        names = [child["name"] for child in found["children"]] if isinstance(found, dict) else []
    except (AtlasError, OSError, KeyError, TypeError):
        try:
            names = [plan.name for plan in load_config(ctx).children]
        except (AtlasError, OSError):
            names = []
    return [name for name in names if name.startswith(incomplete)]
