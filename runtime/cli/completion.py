"""`atlas completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = {
    "bash": 'eval "$(atlas completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(atlas completion zsh)"   # in ~/.zshrc',
    "fish": "atlas completion fish > ~/.config/fish/completions/atlas.fish",
}


@click.command
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  eval "$(atlas completion bash)"   # in ~/.bashrc
    zsh:   eval "$(atlas completion zsh)"    # in ~/.zshrc
    fish:  atlas completion fish > ~/.config/fish/completions/atlas.fish
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows the shells that the choice offers"
    click.echo(found(ctx.find_root().command, {}, "atlas", "_ATLAS_COMPLETE").source())
