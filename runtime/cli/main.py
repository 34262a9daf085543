"""`atlas`: finds the commands of all rooms by entry point, shows their help without importing them, and turns errors
into messages and exit codes.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import itertools
import os
import sys
from pathlib import Path
from typing import Any, Final, TextIO

import click

from runtime.cli.process import (
    OutputRefused,
    become_init,
    check_output,
    leave_in_time,
    open_standard_streams,
    stop_before_the_start,
    take_signals,
)
from runtime.exit_codes import CONFIG, INTERRUPTED, OK, OUTPUT, USAGE, WEDGED


def short_help(target: str) -> str | None:
    """The first sentence of the docstring (or of `help=`) of `module:name`; None when the source does not tell.

    Imports the packages above the module, which are light, and not the module itself.
    """
    module, _, name = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return None
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (ImportError, OSError, SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            text = ast.get_docstring(node) or next((_help(call) for call in node.decorator_list if _help(call)), None)
            return _first_sentence(text) if text else None
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                text = _help(node.value)
                return _first_sentence(text) if text else None
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:  # one that this module adds commands to
                    return short_help(f"{node.module}:{alias.name}")
    return None


def _help(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("help", "short_help") and isinstance(keyword.value, ast.Constant):
                return str(keyword.value.value)
    return None


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n", 1)[0].split())
    return paragraph.split(". ", 1)[0].rstrip(".") + "."


GROUP: Final = "atlas.commands"
"""Entry points of this group (name -> `module:command`) are commands."""

DEBUG: Final = "ATLAS_DEBUG"
"""If this variable is set, an unexpected error shows its traceback."""

MAX_ERRORS_TEXT: Final = 100_000
"""Characters of an error that are shown: a configuration may have hundreds of errors."""

OWN: Final = {
    "run": "runtime.cli.run:run",
    "check": "runtime.cli.check:check",
    "status": "runtime.cli.show:status",
    "inspect": "runtime.cli.show:inspect",
    "crashes": "runtime.cli.show:crashes",
    "deadletters": "runtime.cli.show:deadletters",
    "events": "runtime.cli.show:events",
    "log": "runtime.cli.show:log",
    "top": "runtime.cli.top:top",
    "config": "runtime.cli.effective:config",
    "failpoints": "runtime.cli.show:failpoints",
    "kill": "runtime.cli.operate:kill",
    "start": "runtime.cli.operate:start",
    "restart": "runtime.cli.operate:restart",
    "stop": "runtime.cli.operate:stop",
    "drain": "runtime.cli.operate:drain",
    "pause": "runtime.cli.operate:pause",
    "resume": "runtime.cli.operate:resume",
    "tell": "runtime.cli.messages:tell",
    "ask": "runtime.cli.messages:ask",
    "reload": "runtime.cli.operate:reload",
    "completion": "runtime.cli.completion:completion",
    "operators": "runtime.cli.operator_commands:operators",
}
"""The commands of the runtime itself: they are there however it was installed, and no entry point takes their names."""


class Commands(click.Group):
    """Commands that are imported when they are called, not before."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]  # passed through as click gave them
        self._found: dict[str, str] | None = None

    @property
    def targets(self) -> dict[str, str]:
        """Name -> `module:command` of every command."""
        if self._found is None:
            import importlib.metadata  # the runtime's own commands need it not, and it takes as long as click

            installed = {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
            self._found = installed | OWN
        return self._found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, without importing any."""
        return sorted({*super().list_commands(ctx), *self.targets})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command. One that cannot be imported says so when it is called, and hinders no other."""
        known = super().get_command(ctx, cmd_name)
        target = OWN.get(cmd_name) or self.targets.get(cmd_name)
        if known is not None or target is None:
            return known
        module, _, name = target.partition(":")
        try:
            command = getattr(importlib.import_module(module), name)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one room is that room's problem
            return _broken(cmd_name, f"{target} cannot be loaded: {type(error).__name__}: {error}")
        if not isinstance(command, click.Command):
            return _broken(cmd_name, f"{target} is no click command")
        return command

    def invoke(self, ctx: click.Context) -> Any:  # as click's
        """Run the command; whoever reads its output may leave when he has seen enough (`atlas events | head`)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _discard(sys.stdout)
            return OK

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the sources' docstrings."""
        rows = [(name, short_help(self.targets.get(name, "")) or self._loaded_help(ctx, name)) for name in self.targets]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from runtime.wording import did_you_mean  # only an error needs it

            if args and args[0] not in self.targets:
                raise click.UsageError(
                    f'no such command "{args[0]}"{did_you_mean(args[0], self.targets)}', ctx
                ) from error
            raise

    def _loaded_help(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(100) if command is not None else ""


def _broken(name: str, why: str) -> click.Command:
    def fail() -> None:
        raise click.ClickException(why)

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, callback=fail, short_help=f"(broken: {why})", context_settings=settings)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="atlas", prog_name="atlas")
def cli() -> None:
    """ATLAS keeps a paid VPN service alive: a tree of supervised actors.

    Exit codes: 0 as asked, 1 something needs a human (status, doctor), 64 usage, 65 refused by a rule, 67 nobody of that
    name, 69 gave up or not reachable, 70 wedged or failed, 75 something did not stop or try again later, 77 not allowed (a
    file, or a role), 78 configuration.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    given = sys.argv[1:] if arguments is None else arguments
    open_standard_streams()
    check_output()
    if given[:1] == ["run"]:
        become_init()
        stop_before_the_start()
    take_signals()
    code = _output_checked(run_command_line(arguments))
    leave_in_time(code)
    sys.exit(code)


def run_command_line(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are printed to stderr, if that takes them."""
    try:
        return _run(arguments, as_json=_wants_json(sys.argv[1:] if arguments is None else arguments))
    except OSError:
        # It came out of telling an error: the code of that error is lost with it.
        _discard(sys.stderr)
        return WEDGED


def _wants_json(arguments: list[str]) -> bool:
    """Whether errors are to be one JSON object: a program reads them."""
    return "--json" in itertools.takewhile(lambda word: word != "--", arguments)


def _run(arguments: list[str] | None, *, as_json: bool) -> int:
    try:
        result = cli.main(arguments, prog_name="atlas", standalone_mode=False)
    except click.NoSuchOption as error:
        return _show(_explained(error), USAGE, as_json=as_json)
    except click.UsageError as error:
        return _show(error, USAGE, as_json=as_json)
    except click.ClickException as error:
        return _show(error, WEDGED, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        _say_error(["interrupted"], "Interrupted", INTERRUPTED, as_json=as_json, prefix="")
        return INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else USAGE if leaving.code else 0
    except OutputRefused as error:
        return _tell_refused(error)
    except Exception as error:  # noqa: BLE001  # whatever it is, an operator gets a line and a code, not a traceback
        return _tell(error, as_json=as_json)
    return result if isinstance(result, int) else OK


def _show(error: click.ClickException, code: int, *, as_json: bool) -> int:
    from runtime.redaction import one_line, redact  # `atlas --help` needs no runtime

    if as_json:
        _say_error([redact(one_line(error.format_message()))], type(error).__name__, code, as_json=True)
        return code
    with contextlib.suppress(OSError):
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
            click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
        # It quotes what was typed, or what stands in a file.
        click.echo(f"Error: {one_line(error.format_message())}", err=True)
    return code


def _say_error(lines: list[str], kind: str, code: int, *, as_json: bool, prefix: str = "error: ") -> None:
    """An error on stderr: a line each, or with --json one object on one line, `{"error": {"kind", "message", "exit_code"}}`."""
    if not as_json:
        for line in lines:
            _say(f"{prefix}{line}")
        return
    import json  # as above

    from runtime.redaction import in_json  # as above

    told = {"error": {"kind": kind, "message": "\n".join(lines), "exit_code": code}}
    _say(in_json(json.dumps(told, ensure_ascii=False)))


def _say(text: str) -> None:
    """A line on stderr; one that takes nothing changes nothing about what happens."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _tell_refused(error: OutputRefused) -> int:
    """Stdout took no more: told on stderr, and given up."""
    _say(f"error: stdout does not take the output: {error.strerror}")
    _discard(sys.stdout)
    return OUTPUT


def _output_checked(code: int) -> int:
    """The exit code when all that was said has been flushed, so that the interpreter has nothing to complain about at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OutputRefused as error:
        code = code or _tell_refused(error)
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    return code


def _tell(error: BaseException, *, as_json: bool) -> int:
    """Print an error to stderr, in its own words if it has some, and return the exit code."""
    from runtime.errors import AtlasError, unwrap_group  # `atlas --help` needs no runtime

    whole, error = error, unwrap_group(error)
    if not isinstance(error, AtlasError):
        return _tell_unexpected(error, whole, as_json=as_json)
    from runtime.error_text import message_of  # as above
    from runtime.redaction import one_line  # as above

    lines = message_of(error, MAX_ERRORS_TEXT).splitlines()
    _say_error([one_line(line) for line in lines], type(error).__name__, error.exit_code, as_json=as_json)
    if error.exit_code == CONFIG and len(lines) > 1 and not as_json:
        _say(f"{len(lines)} errors")
    return error.exit_code


def _tell_unexpected(error: BaseException, whole: BaseException, *, as_json: bool) -> int:
    """One line instead of a traceback, which may show values that are nobody's business and tells an operator nothing."""
    from runtime.error_text import message_of, summarise  # as above
    from runtime.redaction import redact  # as above

    if os.environ.get(DEBUG):
        _say(redact("\n".join(summarise(whole).lines())))
    first = next(iter(message_of(error).splitlines()), "")
    name = type(error).__name__
    _say_error([redact(f"unexpected {name}{': ' if first else ''}{first}")], name, WEDGED, as_json=as_json)
    if not as_json:
        _say(f"This is a defect of ATLAS: please report it. With {DEBUG}=1 the command shows where it happened.")
    return WEDGED


def _explained(error: click.NoSuchOption) -> click.UsageError:
    """`customer add -5` names no option, it names a number that nothing here may be."""
    if not error.option_name.lstrip("-")[:1].isdecimal():
        return error
    return click.UsageError(
        f"{error.option_name} is read as an option, and there is none; a number in this place is positive.", error.ctx
    )


def _discard(stream: TextIO) -> None:
    """Nothing takes it any more (`atlas events | head`): keep the interpreter from complaining about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
