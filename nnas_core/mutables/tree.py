"""Finding the mutables of a model: their tree, their keys, and everything that is wrong with them, at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn as nn

from nnas_core.errors import SpaceError
from nnas_core.mutables.base import Mutable, MutableScope
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.keys import AutoKey
from nnas_core.mutables.reduction import REDUCTIONS
from nnas_core.space.choice import Choice

__all__ = ["MutableTree", "parse", "read_choices"]


class MutableTree:
    """A node: the root has no mutable, a scope has children, choices are leaves.

    Iterating gives the mutables in the order of their visit (depth first, before their children), equal keys once.
    """

    def __init__(self, mutable: Mutable | None = None) -> None:
        self.mutable = mutable
        self.children: list[MutableTree] = []

    def add_child(self, mutable: Mutable) -> MutableTree:
        """Append and return a child node."""
        self.children.append(MutableTree(mutable))
        return self.children[-1]

    def type(self) -> type:
        """The class of the node's mutable."""
        return type(self.mutable)

    def __iter__(self) -> Iterator[Mutable]:
        return self.traverse()

    def traverse(self, order: str = "pre", deduplicate: bool = True, memo: set[str] | None = None) -> Iterator[Mutable]:
        """The mutables below this node.

        Args:
            order: ``"pre"`` or ``"post"``: a scope before or after what it contains.
            deduplicate: give the first mutable of each key only.
            memo: keys that count as given already.
        """
        memo = set() if memo is None else memo
        own = [self.mutable] if self.mutable is not None else []
        if order == "pre":
            yield from _fresh(own, deduplicate, memo)
        for child in self.children:
            yield from child.traverse(order, deduplicate, memo)
        if order == "post":
            yield from _fresh(own, deduplicate, memo)


def _fresh(mutables: list[Mutable], deduplicate: bool, memo: set[str]) -> Iterator[Mutable]:
    for mutable in mutables:
        if not deduplicate or mutable.key not in memo:
            memo.add(mutable.key)
            yield mutable


def parse(model: nn.Module) -> MutableTree:
    """Find all mutables of ``model``, number the automatic keys, and check that they make a search space.

    A module object that is registered twice is visited once, its first path is its name.

    Raises:
        SpaceError: with every problem listed, each with its module path.
    """
    root = MutableTree()
    problems: list[str] = []
    seen: set[nn.Module] = set()
    _visit(model, "", root, None, seen, problems)
    problems += _check_attributes(model, seen)
    mutables = list(root.traverse(deduplicate=False))
    _number(mutables)
    problems += _check_tags(mutables) + _check_each(mutables) + _check_shared(mutables)
    if problems:
        raise SpaceError(
            f"the mutables of {type(model).__name__} make no search space",
            problems=problems,
            hint="mend these places in the model",
        )
    return root


def _visit(
    module: nn.Module,
    path: str,
    node: MutableTree,
    inside: Mutable | None,
    seen: set[nn.Module],
    problems: list[str],
) -> None:
    if module in seen:
        return
    seen.add(module)
    if isinstance(module, Mutable) and not (isinstance(module, MutableScope) and module._retired):
        module._identify(path=path)
        if inside is not None:
            problems.append(
                f"{path or 'the model'}: nested search space: a {type(module).__name__} inside the "
                f"{type(inside).__name__} {inside.name!r}"
            )
        node = node.add_child(module)
        if not isinstance(module, MutableScope):
            inside = module
    for name, child in module._modules.items():
        if child is not None:
            _visit(child, f"{path}.{name}" if path else name, node, inside, seen, problems)


def _number(mutables: list[Mutable]) -> None:
    """Give automatic keys their numbers per model, in construction order, and let ``choose_from`` follow."""
    automatic = [(given.serial, mutable) for mutable in mutables if isinstance(given := mutable._given_key, AutoKey)]
    automatic.sort(key=lambda pair: pair[0])  # stable: copies keep the order of the visit
    homes: dict[int, list[Mutable]] = {}
    for number, (serial, mutable) in enumerate(automatic, start=1):
        mutable._identify(key=f"{type(mutable).__name__}{number}")
        homes.setdefault(serial, []).append(mutable)
    for mutable in mutables:
        if isinstance(mutable, InputChoice):
            mutable.choose_from = [
                _nearest(mutable, homes[tag.serial]).key
                if isinstance(tag, AutoKey) and tag.serial in homes
                else str(tag)
                for tag in mutable._tags_given
            ]


def _nearest(mutable: Mutable, homes: list[Mutable]) -> Mutable:
    """Of several deep copies of the mutable that a tag names, the one in the same copied block."""

    def shared_path(other: Mutable) -> int:
        length = 0
        for mine, theirs in zip(mutable.name.split("."), other.name.split("."), strict=False):
            if mine != theirs:
                break
            length += 1
        return length

    return max(homes, key=shared_path)


def _check_attributes(model: nn.Module, registered: set[nn.Module]) -> list[str]:
    """Look through attributes for choices in plain collections, which torch does not find."""
    problems: list[str] = []
    walked: set[int] = set()

    def look(value: object, path: str, advice: str) -> None:
        if isinstance(value, nn.Module):
            if value in registered:
                return
            for inner, module in value.named_modules():
                if isinstance(module, Mutable) and not module.is_bound and module not in registered:
                    where = f"{path}.{inner}" if inner else path
                    problems.append(f"{where}: the {type(module).__name__} {module.key!r} is in a plain {advice}")
        elif isinstance(value, (list, tuple, set, dict)) and id(value) not in walked:
            walked.add(id(value))
            is_mapping = isinstance(value, dict)
            own = f"{type(value).__name__}, use nn.{'ModuleDict' if is_mapping else 'ModuleList'}"
            for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
                look(entry, f"{path}[{name!r}]", own)

    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in _OF_TORCH:
                look(value, f"{path}.{name}" if path else name, "attribute, assign it after super().__init__()")
    return problems


_OF_TORCH = frozenset(vars(nn.Module()))
"""The attributes that every module has, among them its parts."""


def _check_tags(mutables: list[Mutable]) -> list[str]:
    problems, visited = [], set()
    for mutable in mutables:
        visited.add(mutable.key)
        if isinstance(mutable, InputChoice):
            problems += [
                f"{_path(mutable)}: choose_from names {tag!r}, which is no key of a mutable before "
                f"{mutable.key!r}, and not NO_KEY"
                for tag in dict.fromkeys(mutable.choose_from)
                if tag != InputChoice.NO_KEY and tag not in visited
            ]
    return problems


def _check_each(mutables: list[Mutable]) -> list[str]:
    problems = []
    for mutable in mutables:
        if isinstance(mutable, LayerChoice | InputChoice):
            if mutable.reduction not in REDUCTIONS:
                problems.append(
                    f"{_path(mutable)}: {mutable.key!r} has the reduction {mutable.reduction!r}, "
                    f"which is none of {', '.join(REDUCTIONS)}"
                )
            if len(mutable) == 0:
                problems.append(f"{_path(mutable)}: {mutable.key!r} has no candidates")
    return problems


def _check_shared(mutables: list[Mutable]) -> list[str]:
    problems = []
    first: dict[str, Mutable] = {}
    for mutable in mutables:
        other = first.setdefault(mutable.key, mutable)
        if other is mutable or (isinstance(other, MutableScope) and isinstance(mutable, MutableScope)):
            continue
        if isinstance(other, MutableScope) or isinstance(mutable, MutableScope):
            problems.append(
                f"{_path(mutable)}: the key {mutable.key!r} is also that of {_path(other)}, "
                "and only one of the two is a scope"
            )
        elif _decided(mutable) != _decided(other):
            problems.append(
                f"{_path(mutable)}: the key {mutable.key!r} is a {_choice_of(mutable)} here, "
                f"but a {_choice_of(other)} at {_path(other)}"
            )
    return problems


def _decided(mutable: Mutable) -> tuple[object, ...]:
    """Return all that mutables of one key must agree in; tags may differ, they name inputs of different places."""
    choice = _choice_of(mutable)
    names = choice.candidates if choice.kind == "layer_choice" else len(choice.candidates)
    return (choice.kind, names, choice.n_chosen)


def _choice_of(mutable: Mutable) -> Choice:
    if not isinstance(mutable, LayerChoice | InputChoice):
        raise TypeError(f"{type(mutable).__name__} is neither a LayerChoice nor an InputChoice")
    return mutable.choice


def _path(mutable: Mutable) -> str:
    return mutable.name or "the model itself"


def read_choices(model: nn.Module) -> list[Choice]:
    """The choices of a model, equal keys once; what ``SearchSpace.from_model`` is made of."""
    return [_choice_of(mutable) for mutable in parse(model) if not isinstance(mutable, MutableScope)]
