"""``nnas ss-gen``."""

from __future__ import annotations

import click

from nnas_cli import options
from nnas_cli.output import Output
from nnas_core.files import dump_json


@click.command("ss-gen")
@options.model_argument
@options.model_arg
@options.with_output("File to write; - is standard output.")
@options.common
def command(model: str, model_arg: dict[str, object], output: str, seed: int, out: Output) -> None:
    """Write the search space of MODEL as JSON.

    MODEL is file.py[:NAME] or package.module[:NAME]. It is built on the meta device where it allows that, so the size
    of its weights does not matter. With -v a table of all choices goes to standard error.

    \b
    Examples:
      nnas ss-gen model.py
      nnas ss-gen model.py:Net -a layers=20 -o space.json
    """
    from nnas_cli.seeding import seed_globals
    from nnas_core.model import build_on_meta
    from nnas_core.space import SearchSpace
    from nnas_core.tree import parse

    seed_globals(seed)
    built, _ = build_on_meta(model, model_arg)
    space = SearchSpace.from_model(built)
    if out.verbosity >= 2:
        paths: dict[str, list[str]] = {}
        for mutable in parse(built).traverse(deduplicate=False):
            paths.setdefault(mutable.key, []).append(mutable.name or ".")
        rows = [
            [
                choice.key,
                choice.kind,
                ", ".join(paths[choice.key]),
                ", ".join(choice.candidates),
                "any" if choice.n_chosen is None else str(choice.n_chosen),
            ]
            for choice in space
        ]
        out.table(["key", "type", "paths", "candidates", "chosen"], rows)
    out.note(f"{len(space)} keys, {space.size} architectures", level=2)
    out.write(output, dump_json(space.to_json()))
