"""`ffr completion`: the shell's completion script, to be sourced."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL; source it in the shell's start-up file.

    bash: eval "$(ffr completion bash)"

    zsh: eval "$(ffr completion zsh)"

    fish: ffr completion fish | source
    """
    from ffr.cli.main import ffr

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ffr, {}, "ffr", "_FFR_COMPLETE")
    click.echo(kind.source_template % script.source_vars())
