"""``nnas completion``."""

from __future__ import annotations

import click

from nnas_cli import options
from nnas_cli.completion import SHELLS, script
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output

__all__ = ["command"]


@click.command("completion", cls=SectionedCommand)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@options.with_output("Write the script to PATH; - is standard output.")
@options.common_without_seed
def command(shell: str, output: str, out: Output) -> None:
    """Print the script that lets a shell complete nnas.

    It offers commands, options, algorithms and their arguments, kinds of files, and studies.

    \b
    Examples:
      source <(nnas completion bash)
      nnas completion bash >> ~/.bashrc
      nnas completion zsh >> ~/.zshrc
      nnas completion fish > ~/.config/fish/completions/nnas.fish
    """
    text = script(shell, click.get_current_context().find_root().command)
    if out.as_json:
        out.report("completion-report", {"shell": shell, "script": text}, output)
    else:
        out.write(output, text)
