"""``nnas view``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnas_cli import options, studies
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.output import Output
from nnas_cli.parameter_types import FILE
from nnas_core.errors import InputError, UsageError
from nnas_core.files import check_writable

if TYPE_CHECKING:
    from nnas_core.viewing.view import View

__all__ = ["command"]


@click.command("view", cls=SectionedCommand)
@click.argument("name", type=FILE, metavar="[FILE|STUDY]", required=False)
@click.option("--study", metavar="NAME", help="Show the study of this name, or of enough of its beginning.")
@studies.storage
@click.option("--space", metavar="FILE", help="Read an architecture against this search space.")
@click.option("--costs", metavar="FILE", multiple=True, help="Show costs of candidates, as profile writes. Repeatable.")
@click.option("--html", metavar="PATH", help="Write one page that works offline; - is standard output.")
@click.option("--svg", metavar="PATH", help="Write the drawing of the network; - is standard output.")
@click.option("--serve", is_flag=True, help="Show the page to browsers of this machine, and follow what goes on.")
@options.with_output("Write the JSON report to PATH; - is standard output, as a picture unless --json.")
@options.common_without_seed
def command(
    name: str | None,
    study: str | None,
    storage: str,
    space: str | None,
    costs: tuple[str, ...],
    html: str | None,
    svg: str | None,
    serve: bool,
    output: str,
    out: Output,
) -> None:
    """Look at a search space, an architecture, a run or a study.

    FILE is a search space or an architecture (JSON), or a run folder; STUDY, where there is no such file, the name of a
    study. In the terminal: choices with their candidates,
    what is chosen (*), decision weights as bars, curves, Pareto fronts, and which choices matter.

    \b
    Examples:
      nnas view space.json
      nnas view runs/net-darts --html page.html
      nnas view best.json --space space.json --svg net.svg
      nnas view net-bayes --html study.html
      nnas view runs/net-darts --serve
    """
    if serve and (html or svg or out.as_json or output != "-"):
        raise UsageError("`serve` shows the page in a browser and writes no file", hint="leave the others out")
    if [html, svg].count("-") + (out.as_json and output == "-") > 1:
        raise UsageError("standard output can have one of them", hint="give paths")
    paths = [path for path in (html, svg, output) if path not in (None, "-")]
    if len(set(paths)) < len(paths):
        raise UsageError("several outputs are to be written to one file", hint="give each a name of its own")
    for path in paths:
        check_writable(str(path))
    read = _reader(name, study, storage, space, costs)
    if serve:
        _refuse_streams(name, space, *costs)
        _serve(read, out)
        return
    _answer(read(), html, svg, output, out)


def _reader(
    name: str | None, study: str | None, storage: str, space: str | None, costs: tuple[str, ...]
) -> Callable[[], View]:
    """What reads the view, and reads it again while it is followed."""
    if name is not None and study is not None:
        raise UsageError("FILE and `study` are two things to look at", hint="give one of them")
    if name is None:
        if space is not None:
            raise UsageError("`space` does nothing with a study", hint="leave it out")
        return lambda: _study(study, storage, costs)
    if name != "-" and not Path(name).exists():
        if not _is_study(name, storage):
            raise InputError("no such file, folder or study", where=name, hint="check it, or give `storage`")
        options.refuse_idle(["space"], "a study")
        return lambda: _study(name, storage, costs)
    options.refuse_idle(["storage"], "FILE")
    if name != "-" and Path(name).is_dir():
        options.refuse_idle(["space"], "a run folder")
        from nnas_core.viewing.files import view_run

        return lambda: view_run(name, costs)
    from nnas_core.viewing.files import view_file

    return lambda: view_file(name, space, costs)


def _is_study(name: str, storage: str) -> bool:
    if storage == studies.STORAGE and not Path("nnas.db").exists():
        return False
    from nnas_core.study.storage.rows import Damage

    with studies.opened(storage) as store:
        return any(one.name == name for one in store.studies(Damage(store.where)))


def _study(name: str | None, storage: str, costs: tuple[str, ...]) -> View:
    from nnas_core.viewing.studies import view_study

    if name is None and storage == studies.STORAGE and not Path("nnas.db").exists():
        raise UsageError("nothing to look at is named", hint="give FILE, or `study`, and where it is by `storage`")
    with studies.opened(storage) as store:
        return view_study(store, store.find(name, running=True), costs)


def _answer(view: View, html: str | None, svg: str | None, output: str, out: Output) -> None:
    if html is not None:
        from nnas_core.viewing.page import page_of

        out.write(html, page_of(view))
    if svg is not None:
        if view.space is None:
            raise InputError("has no choices that could be drawn", where=view.name)
        from nnas_core.viewing.drawing import stand_alone

        drawing, layout = stand_alone(view)
        out.write(svg, drawing)
        if layout.left_out:
            out.note(f"{layout.left_out:,} connections between choices are not drawn")
    if out.as_json or output != "-":
        out.report("view-report", view.to_json(), output)
    elif html is None and svg is None:
        out.picture(view)


def _refuse_streams(*names: str | None) -> None:
    """What is read again and again has to be there again."""
    for name in filter(None, names):
        path = Path(name)
        if name == "-" or (path.exists() and not path.is_dir() and not path.is_file()):
            raise UsageError(f"`serve` reads again and again, which {name} cannot be", hint="give a file")


def _serve(read: Callable[[], View], out: Output) -> None:
    from nnas_core.viewing.page import page_of
    from nnas_core.viewing.serving import Server

    page_of(read())  # what is wrong is said here, not in a browser
    with Server(read) as server:
        out.answer(f"{server.address}\n")
        out.note("open this address in a browser of this machine; Ctrl-C ends it")
        server.serve()
