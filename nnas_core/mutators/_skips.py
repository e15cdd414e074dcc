"""Skip connections among candidates: which ones are, and how many of them an architecture may have.

Source: Chen, Xie, Wu, Tian, "Progressive Differentiable Architecture Search", arXiv:1904.12760, section 3.3.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch.nn as nn

from nnas_core._listing import shortened
from nnas_core.errors import UsageError
from nnas_core.mutables.base import MutableScope
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.tree import MutableTree
from nnas_core.mutators._mixture import RelaxedRow
from nnas_core.plugins.arguments import check_range

__all__ = ["SkipConnections"]


class SkipConnections:
    """Recognises skip connections, and says which must go where a group has chosen too many.

    A group is a MutableScope that is in no other one (a cell), or all that is outside of scopes; or what ``prefixes``
    says: the LayerChoices whose keys begin so, or where none does, each scope whose key begins so. LayerChoices that
    have nothing but skip connections do not count.

    Args:
        names: of the candidates that are skip connections; None: every ``nn.Identity``, and those whose name begins
            with skip or identity.
        limit: skip connections that a group may choose; None: any number.
        prefixes: beginnings of keys of LayerChoices or of scopes; what none of them names is not limited.

    Raises:
        UsageError: ``limit`` is negative.
    """

    def __init__(self, names: Sequence[str] | None, limit: int | None, prefixes: Sequence[str] | None) -> None:
        check_range("max_skips", limit or 0, "[0, inf)")
        self.names = names
        self.limit = limit
        self.prefixes = prefixes

    def check(self, rows: Sequence[RelaxedRow], tree: MutableTree, left: Callable[[RelaxedRow], int]) -> None:
        """Compare with the candidates that there are.

        Args:
            rows: the LayerChoices.
            tree: of the model.
            left: how many candidates of a LayerChoice there will be when the final architecture is chosen.

        Raises:
            UsageError: a name or a prefix means nothing in this model, or the limit cannot be kept.
        """
        known = sorted({name for row in rows for name in row.mutable.choice.candidates})
        for name in self.names or ():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UsageError(
                    f"skip names {name!r}, which is no candidate of the model",
                    hint=(f"did you mean {near[0]!r}? " if near else "") + f"there are {', '.join(known)}",
                )
        keys = [row.key for row in rows]
        for prefix in self.prefixes or ():
            if not any(key.startswith(prefix) for key in keys) and not _scopes(tree, prefix):
                scopes = [node.mutable.key for node in _scopes(tree, "") if node.mutable is not None]
                raise UsageError(
                    f"skip_groups has {prefix!r}, and no LayerChoice and no scope has a key that begins so",
                    hint=f"there are {shortened(', '.join([*keys, *scopes]), 500)}",
                )
        for group in self._groups(rows, tree) if self.limit is not None else ():
            stuck = [repr(row.key) for row in group if left(row) <= len(self.of(row.mutable))]
            if self.limit is not None and len(stuck) > self.limit:
                raise UsageError(
                    f"max_skips={self.limit} cannot be kept: there may be nothing but skip connections left of"
                    f" {', '.join(stuck)}",
                    hint="drop fewer candidates before the last stage, or give max_skips=null",
                )

    def of(self, mutable: nn.Module) -> list[int]:
        """The candidates of ``mutable`` that are skip connections; none where it is no LayerChoice."""
        if not isinstance(mutable, LayerChoice):
            return []
        pairs = enumerate(zip(mutable.names, mutable.candidates, strict=True))
        return [index for index, (name, candidate) in pairs if self._is_skip(name, candidate)]

    def _is_skip(self, name: str, candidate: nn.Module) -> bool:
        if self.names is not None:
            return name in self.names
        return isinstance(candidate, nn.Identity) or name.lower().startswith(("skip", "identity"))

    def surplus(
        self,
        rows: Sequence[RelaxedRow],
        tree: MutableTree,
        weights: Sequence[Sequence[float]],
        chosen: Mapping[str, int],
    ) -> RelaxedRow | None:
        """The LayerChoice whose skip connection must go first: of a group with too many, that of the least weight.

        Args:
            rows: the LayerChoices.
            tree: of the model.
            weights: ``[K][W]``, by the rows' indices; negative: cannot be chosen.
            chosen: key -> candidate, for those LayerChoices that count.

        Returns:
            None if no group has too many that another candidate could replace.
        """
        if self.limit is None:
            return None
        for group in self._groups(rows, tree):
            skips = [row for row in group if chosen.get(row.key) in self.of(row.mutable)]
            if len(skips) > self.limit:
                movable = [row for row in skips if self._has_other(row, weights[row.index])]
                if movable:
                    return min(movable, key=lambda row: weights[row.index][chosen[row.key]])
        return None

    def _has_other(self, row: RelaxedRow, weights: Sequence[float]) -> bool:
        skips = self.of(row.mutable)
        return any(weights[index] >= 0 for index in range(row.count) if index not in skips)

    def _groups(self, rows: Sequence[RelaxedRow], tree: MutableTree) -> Iterator[list[RelaxedRow]]:
        counted = [row for row in rows if 0 < len(self.of(row.mutable)) < row.count]
        if self.prefixes is not None:
            for prefix in self.prefixes:
                named = [row for row in counted if row.key.startswith(prefix)]
                scopes = [] if named else [{one.key for one in node} for node in _scopes(tree, prefix)]
                yield from [named] if named else ([row for row in counted if row.key in keys] for keys in scopes)
            return
        cells: dict[str, int] = {}
        for number, child in enumerate(tree.children, start=1):
            if isinstance(child.mutable, MutableScope):
                for mutable in child:
                    cells.setdefault(mutable.key, number)
        groups: dict[int, list[RelaxedRow]] = {}
        for row in counted:
            groups.setdefault(cells.get(row.key, 0), []).append(row)
        yield from groups.values()


def _scopes(node: MutableTree, prefix: str) -> list[MutableTree]:
    """The scopes below ``node`` whose keys begin with ``prefix``, without those in one of them."""
    found: list[MutableTree] = []
    for child in node.children:
        if isinstance(child.mutable, MutableScope) and child.mutable.key.startswith(prefix):
            found.append(child)
        else:
            found += _scopes(child, prefix)
    return found
