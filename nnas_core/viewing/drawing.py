"""The network as SVG: a box for each choice, in it all candidates, their weights as widths, what is chosen in colour.

The same drawing stands alone in a file and in the page, whose script changes widths and classes and moves nothing.
"""

from __future__ import annotations

import html
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.viewing.layout import HEAD, ROW, WIDTH, Box, Layout, Wire, laid_out
from nnas_core.viewing.view import View

__all__ = ["Drawing", "asset", "drawing_of", "named", "plain", "stand_alone"]

_MARGIN = 12
_RAIL = 14
"""From the side of a box to the line that leads to its candidates."""

_LEFT, _RIGHT = 34, WIDTH - 34
"""Between which the row of a candidate has its bar and its name."""

_NAME, _KEY = 15, 26
"""Characters of a name and of a key that have room."""


def plain(text: str) -> str:
    """A text of somebody else for markup: what would move or turn it around is an escape, and markup is none."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return html.escape(shown.encode("utf-8", "backslashreplace").decode())


def named(candidate: str) -> str:
    """The name of a candidate; inputs of an InputChoice that stand for no other choice may have none."""
    return candidate or "(unnamed)"


def asset(name: str) -> str:
    """The text of a file that comes with the package."""
    return importlib.resources.files("nnas_core.viewing").joinpath("assets", name).read_text(encoding="utf-8")


def stand_alone(view: View) -> tuple[str, Layout]:
    """The drawing as a file, and where everything stands in it."""
    drawing = drawing_of(view)
    style = f"<style>{asset('colours.css')}{asset('graph.css')}</style>"
    boxes = (box.replace("</g>", f"{inside}</g>") for box, inside in zip(drawing.boxes, drawing.insides, strict=True))
    body = "\n".join([drawing.opening, style, drawing.wires, *boxes, "</svg>"])
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n', drawing.layout


@dataclass(frozen=True)
class Drawing:
    """A drawing in parts.

    Attributes:
        opening: the tag that begins it.
        wires: what lies behind the boxes.
        boxes: of each choice the frame and the key; a group that ends with ``</g>``, which it has once.
        insides: of each choice what goes before that end.
        layout: where everything stands.
    """

    opening: str
    wires: str
    boxes: Sequence[str]
    insides: Sequence[str]
    layout: Layout


def drawing_of(view: View) -> Drawing:
    """The parts of the drawing of what has choices; without any, it is empty."""
    space = view.space or SearchSpace(())
    chosen = _chosen(view)
    layout = laid_out(space, chosen)
    weights = view.weights or {}
    choices = list(space)
    wires = [line for wire in layout.wires for line in _wire(wire, choices, chosen, weights)]
    boxes, insides = [], []
    for number, (choice, box) in enumerate(zip(choices, layout.boxes, strict=True)):
        taken = chosen.get(choice.key, ())
        boxes.append(_box(number, choice, box, taken))
        insides.append("".join(_inside(number, choice, box, taken, weights.get(choice.key))))
    return Drawing(_opening(view, layout), f'<g class="wires">{"".join(wires)}</g>', boxes, insides, layout)


def _chosen(view: View) -> dict[str, tuple[int, ...]]:
    """key -> what the architecture takes; where it weighs, what it weighs above zero."""
    if view.architecture is None:
        return {}
    return {
        key: tuple(index for index, entry in enumerate(mask) if entry > 0)
        for key, mask in view.architecture.masks().items()
    }


def _opening(view: View, layout: Layout) -> str:
    width, height = round(layout.width + 2 * _MARGIN), round(layout.height + 2 * _MARGIN)
    box = f"{-_MARGIN} {-_MARGIN} {width} {height}"
    what = plain(f"{len(view.space or ())} choices of {view.name}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" width="{width}" height="{height}"'
        f' viewBox="{box}" role="group" aria-label="{what}">'
    )


def _thickness(weight: float) -> str:
    """Of a line: what has no weight is still to be seen."""
    return f"{0.8 + 5.2 * max(0.0, min(1.0, weight)):.2f}"


def _wire(
    wire: Wire, choices: Sequence[Choice], chosen: Mapping[str, Sequence[int]], weights: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    curve = _curve(wire.points)
    if not wire.candidates:
        yield f'<path class="order" d="{curve}"/>'
    key = choices[wire.target].key
    for index in wire.candidates:
        taken = " chosen" if index in chosen.get(key, ()) else ""
        width = _thickness(weights[key][index]) if key in weights else _thickness(0.1)
        yield f'<path class="flow{taken}" data-c="{wire.target}.{index}" stroke-width="{width}" d="{curve}"/>'


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """A line that leaves and reaches every point straight down."""
    (x, y), *rest = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        bend = max(12.0, abs(to_y - y) / 2)
        parts.append(f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(parts)


def _box(number: int, choice: Choice, box: Box, chosen: Sequence[int]) -> str:
    taken = ", ".join(named(choice.candidates[index]) for index in chosen)
    words = f"{choice.key}: {len(choice.candidates)} candidates" + (f", chosen {taken}" if taken else "")
    return (
        f'<g class="box" id="c{number}" role="img" tabindex="-1" aria-label="{plain(words)}"'
        f' transform="translate({box.x:.1f} {box.y:.1f})"><rect class="card" width="{WIDTH}" height="{box.height}"'
        f' rx="8"/><text class="key" x="{_RAIL}" y="18">{plain(_cut(choice.key, _KEY))}</text></g>'
    )


def _inside(
    number: int, choice: Choice, box: Box, chosen: Sequence[int], weights: Sequence[float] | None
) -> Iterator[str]:
    for index in sorted(range(len(choice.candidates)), key=set(chosen).__contains__):  # what is chosen lies above
        weight = None if weights is None else weights[index]
        yield from _candidate(f"{number}.{index}", index, choice.candidates[index], box, index in chosen, weight)


def _candidate(place: str, index: int, name: str, box: Box, taken: bool, weight: float | None) -> Iterator[str]:
    y = HEAD + ROW * index + ROW // 2
    middle, out, bend = WIDTH // 2, WIDTH - _RAIL, 6
    path = (
        f"M{middle} 24H{_RAIL + bend}Q{_RAIL} 24 {_RAIL} {24 + bend}V{y - bend}Q{_RAIL} {y} {_RAIL + bend} {y}H{_LEFT}"
        f"M{_RIGHT} {y}H{out - bend}Q{out} {y} {out} {y + bend}V{box.height - 8 - bend}"
        f"Q{out} {box.height - 8} {out - bend} {box.height - 8}H{middle}V{box.height}"
    )
    kind = " chosen" if taken else ""
    width = _thickness(weight if weight is not None else 0.1)
    share = (_RIGHT - _LEFT) * max(0.0, min(1.0, weight or 0.0))
    number = "" if weight is None else f"{weight:.2f}"
    yield f'<path class="flow{kind}" data-c="{place}" stroke-width="{width}" d="{path}"/>'
    yield f'<rect class="share{kind}" x="{_LEFT}" y="{y - 9}" width="{share:.1f}" height="18" rx="4"/>'
    yield f'<text class="name{kind}" x="{_LEFT + 5}" y="{y + 4}">{plain(_cut(named(name), _NAME))}</text>'
    yield f'<text class="number" x="{_RIGHT - 5}" y="{y + 4}">{number}</text>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
