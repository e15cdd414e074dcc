"""``nnas ss-gen``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from nnas_cli import options
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_cli.parameter_types import COMMAND_LINE, FILE
from nnas_core.errors import UsageError
from nnas_core.files import dump_json
from nnas_core.space.sizes import size_as_json, size_in_words
from nnas_core.training.settings import DataSettings, ModelReference, SetupSettings
from nnas_core.workflows.settings import CountSettings, GoalSettings

if TYPE_CHECKING:
    from nnas_core.space.search_space import SearchSpace

__all__ = ["command", "space_of_model"]


@click.command("ss-gen", cls=SectionedCommand)
@click.argument("model", type=FILE, metavar="MODEL", required=False)
@options.model_arg
@click.option(
    "--trial-command",
    type=COMMAND_LINE,
    metavar="CMD",
    help="Run this NNI trial for its search space (no shell), instead of building MODEL.",
)
@click.option("--trial-dir", metavar="DIR", default=".", show_default=True, help="Run CMD in this folder.")
@click.option("--count", is_flag=True, help="Say how many architectures there are, or are within the --constraint.")
@options.constraint
@options.latency_table
@click.option("--task", metavar="FILE", help="Take the data that costs are measured on from this file; with --count.")
@options.with_output("Write the answer to PATH; - is standard output.")
@options.common
def command(
    model: str | None,
    model_arg: dict[str, object],
    trial_command: str | None,
    trial_dir: str,
    count: bool,
    constraint: tuple[str, ...],
    latency_table: str | None,
    task: str | None,
    output: str,
    seed: int,
    out: Output,
) -> None:
    """Write the search space of MODEL as JSON.

    MODEL is file.py[:NAME] or package.module[:NAME]. It is built on the meta device where it allows that, so the size
    of its weights does not matter. With -v a table of all choices goes to standard error.

    A trial program of NNI 1.x is run with NNI_GEN_SEARCH_SPACE set, and writes its search space instead of training.

    \b
    Examples:
      nnas ss-gen model.py
      nnas ss-gen model.py:Net -a layers=20 -o space.json
      nnas ss-gen model.py --count --constraint "parameters<=1e6" --constraint "macs<=3e8"
      nnas ss-gen --trial-command "python trial.py" --trial-dir code
    """
    if (model is None) == (trial_command is None):
        raise UsageError("give either MODEL or --trial-command")
    if not count:
        _refuse_without_count()
    elif trial_command is not None:
        options.refuse_idle(("constraint", "latency_table", "task"), "--trial-command")
    else:
        setup = SetupSettings(model=ModelReference(str(model), model_arg, task), data=DataSettings(seed=seed))
        goals = GoalSettings(constraint=constraint, latency_table=latency_table)
        _count(CountSettings(setup=setup, goals=goals), output, out)
        return
    paths: dict[str, list[str]] = {}
    if trial_command is not None:
        from nnas_core.workflows.nni_dry_run import dry_run

        space = dry_run(trial_command, trial_dir)
    else:
        space, paths = space_of_model(str(model), model_arg, seed)
    if out.verbosity >= 2:
        rows = [
            [
                choice.key,
                choice.kind,
                ", ".join(paths.get(choice.key, ["-"])),
                ", ".join(choice.candidates),
                "any" if choice.n_chosen is None else str(choice.n_chosen),
            ]
            for choice in space
        ]
        out.table(["key", "type", "paths", "candidates", "chosen"], rows)
    out.note(f"{len(space)} keys, {size_in_words(space.size)} architectures", level=2)
    out.write(output, dump_json(space.to_json()))


def _refuse_without_count() -> None:
    given = options.explicit()
    for name in ("constraint", "latency_table", "task"):
        if given.get(name):
            raise UsageError(f"`{name}` does nothing without --count", hint="give both, or leave it out")


def _count(settings: CountSettings, output: str, out: Output) -> None:
    """Say how many architectures are left."""
    with without_collection():
        from nnas_cli.seeding import seed_globals
        from nnas_core.workflows.count import count

    seed_globals(settings.setup.seed)
    found = count(settings)
    if out.as_json or output != "-":
        document = {
            "space_size": size_as_json(found.size),
            "constraints": found.constraints,
            "architectures": size_as_json(found.left),
            "exact": found.exact,
        }
        out.report("count-report", document, output)
        return
    whole = f"{size_in_words(found.size, ',')} architectures"
    if found.constraints:
        left = ("" if found.exact else "about ") + size_in_words(found.left, ",")
        whole = f"{left} of {whole} have {' and '.join(found.constraints)}"
    out.answer(f"{whole}\n")


def space_of_model(model: str, arguments: Mapping[str, object], seed: int) -> tuple[SearchSpace, dict[str, list[str]]]:
    """The space of a model, and the module paths of each key."""
    with without_collection():
        from nnas_cli.seeding import seed_globals
        from nnas_core.mutables.tree import parse
        from nnas_core.space.search_space import SearchSpace
        from nnas_core.training.model import build_on_meta

    seed_globals(seed)
    built, _ = build_on_meta(model, arguments)
    paths: dict[str, list[str]] = {}
    for mutable in parse(built).traverse(deduplicate=False):
        paths.setdefault(mutable.key, []).append(mutable.name or ".")
    return SearchSpace.from_model(built), paths
