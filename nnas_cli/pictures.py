"""A view in the terminal: a tree of choices with bars, curves, the Pareto front, and what matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len

from nnas_cli.escapes import printable
from nnas_cli.tables import cut

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text
    from rich.tree import Tree

    from nnas_core.space.choice import Choice
    from nnas_core.space.search_space import SearchSpace
    from nnas_core.viewing.view import Trials, View, ViewedCost

__all__ = ["picture"]

_KEYS = 60
"""Choices that are shown; a page has them all."""

_CANDIDATES = 20

_DEPTH = 6
"""Scopes in each other."""

_LINES = " ▁▂▃▄▅▆▇█"
_PLAIN_LINES = " .:-=+*#@"


def picture(view: View, width: int, *, can_draw: bool) -> Iterator[RenderableType]:
    """The parts of the picture, one below the other.

    Args:
        view: what is shown.
        width: columns.
        can_draw: it has characters for blocks and lines, else ASCII serves.
    """
    yield _text(cut(printable(f"{view.kind}  {view.name}"), width), style="bold")
    for name, value in view.facts:
        yield _text(cut(printable(f"  {name}: {value}"), width))
    for note in view.notes:
        yield _text(printable(f"  note: {note}"), style="yellow", overflow="fold")
    if view.space is not None and len(view.space):
        yield _text("")
        yield from _choices(view, view.space, width, can_draw)
    if view.trials is not None:
        yield from _importance(view.trials, width, can_draw)
        yield from _fronts(view.trials, width)
    yield from _curves(view, width, can_draw)


def _text(content: str, style: str = "", overflow: Literal["fold", "crop"] | None = None) -> Text:
    from rich.text import Text  # late: rich draws random numbers when this is first imported

    return Text(content, style, overflow=overflow)


# ---- the tree


@dataclass
class _Scope:
    """What has one beginning of its keys."""

    scopes: dict[str, _Scope] = field(default_factory=dict)
    choices: list[tuple[str, Choice]] = field(default_factory=list)


def _choices(view: View, space: SearchSpace, width: int, can_draw: bool) -> Iterator[RenderableType]:
    from rich.tree import Tree  # late: likewise

    root = _Scope()
    shown = list(space)[:_KEYS]
    for choice in shown:
        *outer, last = choice.key.replace("/", ".").split(".", _DEPTH)
        scope = root
        for name in outer:
            scope = scope.scopes.setdefault(name, _Scope())
        scope.choices.append((last or choice.key, choice))
    chosen = {} if view.architecture is None else view.architecture.masks()
    heading = "choices" if view.meaning is None else f"choices, with the {view.meaning}"
    tree = Tree(_text(cut(heading, width), style="bold"), guide_style="dim")
    _grow(tree, root, view, chosen, width - 4, can_draw)
    yield tree
    if len(space) > len(shown):
        yield _text(f"... and {len(space) - len(shown):,} more choices: --html has them all", style="dim")


def _grow(
    tree: Tree, scope: _Scope, view: View, chosen: Mapping[str, Sequence[float]], width: int, can_draw: bool
) -> None:
    for name, inner in scope.scopes.items():
        _grow(tree.add(_text(cut(printable(name), width))), inner, view, chosen, width - 4, can_draw)
    for name, choice in scope.choices:
        takes = (
            "" if choice.n_chosen == 1 else "  (any number)" if choice.n_chosen is None else f"  ({choice.n_chosen})"
        )
        branch = tree.add(_text(cut(printable(name + takes), width), style="bold"))
        weights = (view.weights or {}).get(choice.key)
        costs = view.costs.get(choice.key, ())
        names = [
            cut(printable(one) or "(unnamed)", max(6, min(28, width // 2))) for one in choice.candidates[:_CANDIDATES]
        ]
        room = max(map(cell_len, names), default=0)
        for index, shown in enumerate(names):
            is_taken = index < len(chosen.get(choice.key, ())) and chosen[choice.key][index] > 0
            line = ("* " if is_taken else "  ") + shown + " " * (room - cell_len(shown))
            if weights is not None:
                bar = "" if costs and width < 70 else _bar(weights[index], max(4, min(30, width - room - 14)), can_draw)
                line += f" {weights[index]:.2f} {bar}"
            if index < len(costs):
                line += _cost(costs[index])
            branch.add(_text(cut(line, max(8, width - 4)), "green bold" if is_taken else ""))
        if len(choice.candidates) > len(names):
            branch.add(_text(f"... and {len(choice.candidates) - len(names):,} more", style="dim"))


def _bar(share: float, width: int, can_draw: bool) -> str:
    full = max(0.0, min(1.0, share)) * width
    if not can_draw:
        return "#" * round(full)
    whole, part = divmod(round(full * 8), 8)
    return "█" * whole + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[part]


def _cost(cost: ViewedCost) -> str:
    told = [
        f"{cost.parameters:,} p" if cost.parameters is not None else "",
        f"{cost.macs:,} MACs" if cost.macs is not None else "",
        f"{cost.latency_ms:.4g} ms" if cost.latency_ms is not None else "",
        f"gives {'x'.join(map(str, cost.output))}" if cost.output else "",
    ]
    words = ", ".join(filter(None, told))
    return f"  {words}" if words else ""


# ---- numbers


def _importance(trials: Trials, width: int, can_draw: bool) -> Iterator[RenderableType]:
    if not trials.importance:
        return
    how = "exact" if trials.exact else f"estimated from {trials.succeeded:,} trials"
    yield _text("")
    yield _text(cut(f"importance: share of the variance that a choice explains alone, {how}", width), style="bold")
    shown = trials.importance[:15]
    names = [cut(printable(one.key), max(8, width // 3)) for one in shown]
    room = max(map(cell_len, names))
    for name, one in zip(names, shown, strict=True):
        bar = _bar(one.share, max(4, min(40, width - room - 12)), can_draw)
        yield _text(f"  {name}{' ' * (room - cell_len(name))} {100 * one.share:5.1f} % {bar}")
    if len(trials.importance) > len(shown):
        yield _text(f"  ... and {len(trials.importance) - len(shown):,} more", style="dim")


def _fronts(trials: Trials, width: int) -> Iterator[RenderableType]:
    by_number = {one.number: one for one in trials.shown}
    for front in trials.fronts:
        better = "smaller" if front.smaller else "larger"
        yield _text("")
        yield _text(cut(printable(f"Pareto front of value and {front.of} ({better} is better)"), width), style="bold")
        shown = [by_number[number] for number in front.numbers if number in by_number][:12]
        for trial in shown:
            if trial.value is not None:
                second = trial.measured.get(front.of, float("nan"))
                yield _text(cut(f"  trial {trial.number:<6} {trial.value:<12.6g} {second:.6g}", width))
        if len(front.numbers) > len(shown):
            yield _text(f"  ... and {len(front.numbers) - len(shown):,} more", style="dim")


def _curves(view: View, width: int, can_draw: bool) -> Iterator[RenderableType]:
    lines: list[tuple[str, list[float]]] = []
    for part in ("train", "valid"):
        rows = [epoch.train if part == "train" else epoch.valid for epoch in view.epochs]
        names = dict.fromkeys(name for row in rows for name in row)
        lines += [(f"{part} {name}", [row[name] for row in rows if name in row]) for name in names]
    if view.trials is not None and view.trials.curve:
        lines.append(("best value so far", _stretched(view.trials.curve, view.trials.count)))
    if not lines:
        return
    yield _text("")
    what = "trials" if view.trials is not None else "epochs"
    yield _text(cut(f"curves over {what}, first to last", width), style="bold")
    labels = [cut(printable(name), max(8, width // 3)) for name, _ in lines]
    room = max(map(cell_len, labels))
    told = [f"{values[0]:.4g} to {values[-1]:.4g}" for _, values in lines]
    left = max(4, min(60, width - room - max(map(len, told)) - 4))
    for name, (_, values), ends in zip(labels, lines, told, strict=True):
        line = _sparkline(values, left, can_draw)
        yield _text(cut(f"  {name}{' ' * (room - cell_len(name))} {line} {ends}", width))


def _stretched(curve: Sequence[tuple[int, float]], count: int) -> list[float]:
    """The value at each of at most 200 places between the first trial and the last."""
    places = [place * max(1, count - 1) / 199 for place in range(200)]
    values = []
    step = 0
    for place in places:
        while step + 1 < len(curve) and curve[step + 1][0] <= place:
            step += 1
        values.append(curve[step][1])
    return values


def _sparkline(values: Sequence[float], width: int, can_draw: bool) -> str:
    if len(values) > width:
        values = [values[place * (len(values) - 1) // (width - 1)] for place in range(width)]
    largest = max(map(abs, values)) or 1.0
    values = [value / largest for value in values]  # their differences neither overflow nor vanish
    low, high = min(values), max(values)
    characters = _LINES if can_draw else _PLAIN_LINES
    scale = 0.0 if high == low else 7 / (high - low)
    return "".join(characters[1 + round((value - low) * scale)] for value in values)
