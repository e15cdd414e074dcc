"""The group of all commands; a command's module is imported only when it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from nnas_cli import boundary
from nnas_cli.groups import LazyGroup
from nnas_core import __version__

__all__ = ["COMMANDS", "cli", "entry"]

COMMANDS = {
    "ss-gen": "Write the search space of MODEL as JSON.",
    "search": "Train a supernet one-shot and find an architecture.",
    "export": "Write an architecture, or its network for use without nnas.",
    "tune": "Search architectures of MODEL by trials.",
    "retrain": "Train one architecture of MODEL alone and test it.",
    "evaluate": "Measure an architecture with the weights it inherits.",
    "profile": "Measure what architectures and candidates cost.",
    "assess": "Compare what was found with random architectures.",
    "view": "Look at a search space, an architecture, a run or a study.",
    "runs": "List the run folders below FOLDER, or below here.",
    "compare": "Compare runs and studies in one table.",
    "study": "Follow, change, export and back up studies.",
    "validate": "Check FILEs against their schemas and a search space.",
    "list": "List what --mutator, --tuner or --assessor takes.",
    "completion": "Print the script that lets a shell complete nnas.",
    "info": "Print versions and devices for bug reports.",
}
"""Name -> the first line of its help, so that ``nnas --help`` imports no command (a test compares them)."""


@click.group(
    cls=LazyGroup,
    package="nnas_cli.commands",
    summaries=COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "NNAS",
        "max_content_width": 100,
    },
    epilog="Every command has examples: nnas COMMAND --help",
)
@click.version_option(__version__, "-V", "--version", prog_name="nnas", message="%(prog)s %(version)s")
def cli() -> None:
    """Neural architecture search for ordinary PyTorch modules.

    Mark choices in a model with LayerChoice and InputChoice, then:

    \b
      nnas ss-gen model.py                        the search space as JSON
      nnas search model.py --mutator random -o run
      nnas tune model.py --checkpoint run/checkpoint.pt -o best.json
      nnas retrain model.py --architecture best.json
    """


def entry(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is returned."""
    return boundary.run(cli, list(sys.argv[1:] if arguments is None else arguments))
