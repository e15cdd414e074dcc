"""``nnas study``: the group of its commands."""

from __future__ import annotations

import click

from nnas_cli.groups import LazyGroup

__all__ = ["SUMMARIES", "command"]

SUMMARIES = {
    "list": "List the studies with their states and best values.",
    "show": "Show what a study was made with, and how far it is.",
    "trials": "List trials, all or the best or worst ones.",
    "top": "Follow a study while it runs.",
    "log": "Print what a trial's program printed.",
    "kill": "End a running trial.",
    "retry": "Let trials that failed be tried again.",
    "stop": "Ask a running study to stop.",
    "update": "Change the limits of a running study.",
    "export": "Write results, or the best architectures.",
    "import": "Add results of elsewhere, for the tuner to learn from.",
    "delete": "Delete a study and its trials.",
    "backup": "Copy a database of studies, also while they run.",
}
"""Name -> the first line of its help, so that ``nnas study --help`` imports no command (a test compares them)."""


@click.group("study", cls=LazyGroup, package="nnas_cli.commands.study", summaries=SUMMARIES)
def command() -> None:
    """Follow, change, export and back up studies.

    Everything is read from the storage and asked for through it; no server runs. STUDY is a name or enough of its
    beginning, and can be left out where there is one study only, or one that runs.

    \b
    Examples:
      nnas study list
      nnas study top model-bayes
      nnas study trials --head 5
      nnas study export --format csv -o results.csv
    """
