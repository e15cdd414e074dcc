"""Which algorithms serve what another one cannot: asked of their classes, so that no list is kept by hand."""

from __future__ import annotations

from collections.abc import Callable

from nnas_core.mutables.mutator import Mutator
from nnas_core.plugins import registry

__all__ = ["mutators_that"]


def mutators_that(serve: Callable[[type[Mutator]], bool]) -> str:
    """Return the names of nnas's own mutators for which ``serve`` is true; for hints, it imports all of them."""
    own = [name for name, one in registry.entries("mutators").items() if one.target.startswith("nnas_core.")]
    return ", ".join(name for name in own if serve(registry.find_subclass("mutators", name, Mutator)))
