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
    --tuner-arg or --assessor-arg may set. Columns of mutators are two small spaces of which every network was trained
    alone: they say which of all networks a search hands out, 1 being the best, as a mean over searches.

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


def _show(found: Sequence[Entry], measured: Mapping[str, Mapping[str, Ranking]], out: Output) -> None:
    """A table of algorithms; with ``--verbose`` also one of their options."""
    columns = ["name", *measured, "summary", "source"]
    ranks = [[_rank(space.get(one.name)) for space in measured.values()] for one in found]
    rows = [[one.name, *rank, one.summary, one.source] for one, rank in zip(found, ranks, strict=True)]
    out.table(columns, rows, answer=True)
    if out.verbosity > 1:
        out.answer("\n")
        out.table(["name", "option", "default", "type", "meaning"], _options(found), answer=True)


def _rank(measured: Ranking | None) -> str:
    """The mean rank of what a search hands out, among all."""
    return "-" if measured is None else f"{measured['rank']:.0f}/{measured['architectures']}"


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


def _document(one: Entry, measured: Mapping[str, Mapping[str, Ranking]]) -> dict[str, object]:
    options = one.options()
    document: dict[str, object] = {
        "name": one.name,
        "summary": one.summary,
        "source": one.source,
        "class": one.target,
        "options": None if options is None else [asdict(option) for option in options],
    }
    if one.group == "mutators":
        document["measured"] = {name: space[one.name] for name, space in measured.items() if one.name in space} or None
    return document
