"""``nnas list``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output

if TYPE_CHECKING:
    from nnas_core.plugins.registry import Entry, Ranking

__all__ = ["command"]

_GROUPS = ("mutators", "tuners", "assessors")


@click.command("list", cls=SectionedCommand)
@click.argument("group", type=click.Choice(_GROUPS), required=False)
@options.with_output("Write the answer to PATH; - is standard output.")
@options.common_without_seed
def command(group: str | None, output: str, out: Output) -> None:
    """List what --mutator, --tuner or --assessor takes.

    Without an argument all three are listed. With the source of each, and with --verbose also what --mutator-arg,
    --tuner-arg or --assessor-arg may set. A column tau, where there is one, says how well the ranking with inherited
    weights agrees with the truth: Kendall's tau, measured on a small space.

    \b
    Examples:
      nnas list
      nnas list mutators --verbose
      nnas list tuners --json
    """
    from nnas_core.plugins import registry

    measured = registry.measured()
    groups = {one: list(registry.entries(one).values()) for one in ([group] if group else _GROUPS)}
    if out.as_json or output != "-":
        document = {name: [_document(one, measured) for one in found] for name, found in groups.items()}
        out.report("list-report", document, output)
        return
    for place, (name, found) in enumerate(groups.items()):
        if len(groups) > 1:
            out.answer(f"\n{name}\n\n" if place else f"{name}\n\n")
        _show(found, measured if name == "mutators" else {}, out)


def _show(found: Sequence[Entry], measured: Mapping[str, Ranking], out: Output) -> None:
    """A table of algorithms; with ``--verbose`` also one of their options."""
    columns = ["name", *(["tau"] if measured else []), "summary", "source"]
    rows = [[one.name, *([_tau(measured.get(one.name))] if measured else []), one.summary, one.source] for one in found]
    out.table(columns, rows, answer=True)
    if out.verbosity > 1:
        out.answer("\n")
        out.table(["name", "option", "default", "type", "meaning"], _options(found), answer=True)


def _tau(measured: Ranking | None) -> str:
    """Kendall's tau of the ranking with inherited weights: mean and standard deviation over seeds."""
    if measured is None:
        return "-"
    return f"{measured['kendall_tau']:.2f} ± {measured['kendall_tau_std']:.2f}"


def _options(found: Sequence[Entry]) -> list[list[str]]:
    rows = []
    for one in found:
        options = one.options()
        if not options:
            rows.append([one.name, "none" if options is not None else "not known", "", "", ""])
        for option in options or ():
            default = "(required)" if option.default is None else option.default
            rows.append([one.name, option.name, default, option.type, option.summary])
    return rows


def _document(one: Entry, measured: Mapping[str, Ranking]) -> dict[str, object]:
    options = one.options()
    document: dict[str, object] = {
        "name": one.name,
        "summary": one.summary,
        "source": one.source,
        "class": one.target,
        "options": None if options is None else [asdict(option) for option in options],
    }
    if one.group == "mutators":
        document["measured"] = measured.get(one.name)
    return document
