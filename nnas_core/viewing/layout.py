"""Where the choices of a space stand in a picture: in layers from top to bottom, as few lines crossing as can be.

A search space says of an InputChoice which other choices it takes its inputs from, and no more about how a network is
connected. Where no input is known choices stand below each other in the order of their keys, joined by a line; where
some are, those that have none stand in rows.
"""

from __future__ import annotations

import graphlib
import importlib.util
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nnas_core.errors import UsageError
from nnas_core.space.search_space import SearchSpace

__all__ = ["HEAD", "ROW", "WIDTH", "Box", "Layout", "Wire", "laid_out"]

WIDTH = 232
"""Of the box of a choice, in pixels."""

HEAD = 34
"""The height of its head."""

ROW = 24
"""The height of the row of a candidate."""

_FOOT = 16
_GAP = 44
_BESIDE = WIDTH + 28
_BEND = 20

_IN_A_ROW = 4
"""Choices of which some are inputs of others."""

_MOST_LAYERS_CROSSED = 3000
"""By all wires together: beyond that a layout takes many seconds, and nobody can follow the lines."""


@dataclass(frozen=True)
class Box:
    """The place of a choice: its upper left corner, and its height."""

    x: float
    y: float
    height: float


@dataclass(frozen=True)
class Wire:
    """A line between two boxes.

    Attributes:
        source, target: the numbers of the choices.
        candidates: of the target, those that are this line; none: one merely stands below the other.
        points: through which it goes, from the foot of the source to the head of the target.
    """

    source: int
    target: int
    candidates: Sequence[int]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Layout:
    """A picture's geometry.

    Attributes:
        width, height: of all.
        boxes: in the order of the choices.
        wires: between them.
        left_out: connections that are known and not drawn.
    """

    width: float
    height: float
    boxes: Sequence[Box]
    wires: Sequence[Wire]
    left_out: int


def laid_out(space: SearchSpace, chosen: Mapping[str, Iterable[int]] | None = None) -> Layout:
    """Places the choices of a space.

    Args:
        space: whose.
        chosen: of each key the candidates whose connections are kept where not all can be drawn.

    Raises:
        UsageError: the package that computes layouts is not installed.
    """
    if importlib.util.find_spec("fast_sugiyama") is None:
        raise UsageError("fast-sugiyama, which places the choices, is not installed", hint="pip install 'nnas[view]'")
    known = _connections(space)
    order = _in_order(len(space), known)
    kept = _bounded(known, order, space, chosen or {})
    edges: dict[_Edge, tuple[int, ...]] = {**dict.fromkeys(order, ()), **kept}
    heights = [HEAD + ROW * len(choice.candidates) + _FOOT for choice in space]
    return _placed(heights, edges, sum(map(len, known.values())) - sum(map(len, kept.values())))


_Edge = tuple[int, int]


def _connections(space: SearchSpace) -> dict[_Edge, tuple[int, ...]]:
    """(source, target) -> the candidates of the target that are the source; empty if they go in a circle."""
    numbers = {key: number for number, key in enumerate(space.keys)}
    found: dict[_Edge, tuple[int, ...]] = {}
    for target, choice in enumerate(space):
        if choice.kind == "input_choice":
            for index, name in enumerate(choice.candidates):
                edge = (numbers.get(name, target), target)
                if edge[0] != target:
                    found[edge] = (*found.get(edge, ()), index)
    try:
        _depths(found)
    except graphlib.CycleError:
        return {}
    return found


def _depths(edges: Iterable[_Edge]) -> dict[int, int]:
    """The layer of each choice that is connected."""
    sources: dict[int, list[int]] = defaultdict(list)
    for source, target in edges:
        sources[target].append(source)
    depths: dict[int, int] = {}
    for one in graphlib.TopologicalSorter(sources).static_order():
        depths[one] = max((depths[source] + 1 for source in sources.get(one, ())), default=0)
    return depths


def _bounded(
    known: Mapping[_Edge, tuple[int, ...]],
    order: Iterable[_Edge],
    space: SearchSpace,
    chosen: Mapping[str, Iterable[int]],
) -> dict[_Edge, tuple[int, ...]]:
    """Those that can be drawn: what is chosen first, then what is short."""
    depths, keys = _depths([*known, *order]), space.keys

    def rank(edge: _Edge) -> tuple[bool, int]:
        taken = set(chosen.get(keys[edge[1]], ()))
        return taken.isdisjoint(known[edge]), depths[edge[1]] - depths[edge[0]]

    kept, crossed = {}, 0
    for edge in sorted(known, key=rank):
        crossed += depths[edge[1]] - depths[edge[0]]
        if crossed > _MOST_LAYERS_CROSSED:
            break
        kept[edge] = known[edge]
    return kept


def _in_order(count: int, known: Iterable[_Edge]) -> list[_Edge]:
    """From each choice without a known input to the one that stands below it."""
    targets = {target for _, target in known}
    alone = [one for one in range(count) if one not in targets]
    return list(zip(alone, alone[_IN_A_ROW if targets else 1 :], strict=False))


def _placed(heights: Sequence[float], edges: Mapping[_Edge, tuple[int, ...]], left_out: int) -> Layout:
    from fast_sugiyama import from_edges  # late: an extra

    drawn = sorted({one for edge in edges for one in edge})
    numbers = {one: place for place, one in enumerate(drawn)}  # what comes behind them stands for bends of lines
    parts = from_edges(
        [(numbers[source], numbers[target]) for source, target in edges],
        vertex_spacing=_BESIDE,
        dummy_vertices=True,
        transpose=False,
    )
    boxes: list[Box | None] = [None] * len(heights)
    bends: dict[_Edge, list[tuple[float, float]]] = {}
    right = bottom = 0.0
    for positions, _, _, lines in parts:
        corners = [(int(node), (float(x), float(y))) for node, (x, y) in positions]
        at, width, height = _packed(corners, [heights[one] for one in drawn])
        for node, (x, y, _) in at.items():
            if node < len(drawn):
                boxes[drawn[node]] = Box(right + x, y, heights[drawn[node]])
        for path in _paths([(int(one), int(other)) for one, other in lines or ()], len(drawn)):
            middle = [(right + at[one][0], at[one][1] + down) for one in path[1:-1] for down in (0.0, at[one][2])]
            bends[drawn[path[0]], drawn[path[-1]]] = middle
        right, bottom = right + width, max(bottom, height)
    for number, height in enumerate(heights):  # those that are connected with nothing
        if boxes[number] is None:
            boxes[number] = Box(right, 0.0, height)
            right, bottom = right + _BESIDE, max(bottom, height + _GAP)
    placed = [box for box in boxes if box is not None]
    is_chain = not any(edges.values())
    drawn_edges = {edge: one for edge, one in edges.items() if one or is_chain}
    wires = [_wire(edge, candidates, placed, bends.get(edge, [])) for edge, candidates in drawn_edges.items()]
    return Layout(max(right - _BESIDE + WIDTH, WIDTH), max(bottom - _GAP, 1.0), placed, wires, left_out)


def _packed(
    positions: Iterable[tuple[int, tuple[float, float]]], heights: Sequence[float]
) -> tuple[dict[int, tuple[float, float, float]], float, float]:
    """Layers as they were found, each in its order, without the gaps that keep long lines straight.

    Args:
        positions: of nodes; y grows upwards.
        heights: of those that are boxes, which have the first numbers.

    Returns:
        By node its upper left corner and the height of its layer; the width and the height of all.
    """
    layers: dict[float, list[tuple[float, int]]] = defaultdict(list)
    for node, (x, y) in positions:
        layers[y].append((x, node))

    def room(node: int) -> float:
        return _BESIDE if node < len(heights) else _BEND

    widths = {y: sum(room(node) for _, node in layer) for y, layer in layers.items()}
    widest = max(widths.values())
    at: dict[int, tuple[float, float, float]] = {}
    top = 0.0
    for y in sorted(layers, reverse=True):
        x = (widest - widths[y]) / 2
        tallest = max((heights[node] for _, node in layers[y] if node < len(heights)), default=0.0)
        for _, node in sorted(layers[y]):
            at[node] = (x, top, tallest)
            x += room(node)
        top += tallest + _GAP
    return at, widest, top


def _paths(lines: Iterable[_Edge], count: int) -> list[list[int]]:
    """From choice to choice, with the bends between."""
    follows: dict[int, list[int]] = defaultdict(list)
    for source, target in lines:
        follows[source].append(target)
    paths = []
    for source in [one for one in follows if one < count]:
        for step in follows[source]:
            path = [source, step]
            while path[-1] >= count:
                path.append(follows[path[-1]][0])
            paths.append(path)
    return paths


def _wire(edge: _Edge, candidates: Sequence[int], boxes: Sequence[Box], bends: Sequence[tuple[float, float]]) -> Wire:
    source, target = boxes[edge[0]], boxes[edge[1]]
    begin, end = (source.x + WIDTH / 2, source.y + source.height), (target.x + WIDTH / 2, target.y)
    return Wire(edge[0], edge[1], candidates, [begin, *bends, end])
