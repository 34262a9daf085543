"""`atlas run`."""

from __future__ import annotations

import sys

import click

from runtime.cli.options import config_option, load_startable


@click.command
@config_option
@click.option("--quiet", is_flag=True, help="No start screen.")
@click.pass_context
def run(ctx: click.Context, *, quiet: bool) -> None:
    """Run the system that the configuration declares, in the foreground.

    The first TERM or INT (Ctrl-C) drains and stops everything in order, a second one shortens that, a third leaves at once.
    HUP reloads what is safe to reload and says what is not.

    Exit codes: 0 asked to stop, 1 wedged while code held the interpreter lock, 69 gave up, or another instance runs, 70 wedged
    or a failed start, 75 something did not stop, or a third signal, 78 configuration.
    """
    config = load_startable(ctx)
    import trio  # a configuration with errors is reported without it

    from runtime.errors import AtlasError  # as above
    from runtime.log import logs  # as above
    from runtime.system.system import run_system  # as above

    writer = logs.start(config.log.level, config.log.format)
    try:
        for warning in config.warnings:
            logs.get_logger("atlas.config").warning(warning)
        code = trio.run(lambda: run_system(config, writer=None if quiet else writer), strict_exception_groups=True)
    except Exception as error:
        if not isinstance(error, AtlasError):
            logs.get_logger("atlas").critical("the system ended by an unexpected error", error=error)
        raise
    finally:
        logs.stop()
    sys.exit(code)
