"""Codes that were seen are remembered, and others are drawn, until there are none."""

from __future__ import annotations

import numpy as np

from nnas_core.errors import NoResultError
from nnas_core.space.encoding import Code, Codes
from nnas_core.space.region import Region

__all__ = ["Unseen"]

_LISTED = 100_000
"""Codes of a region that are listed where draws come back to what was seen; of a larger one there are always others."""

_TRIES = 1000
"""Draws of a region that may all have been seen."""


class Unseen:
    """Remembers codes, and draws those that were never seen, until there are none.

    Args:
        codes: of the space to draw from.
        region: that codes must be in; None: all are.
    """

    def __init__(self, codes: Codes, region: Region | None = None) -> None:
        self._codes = codes
        self._region = region
        self._seen: set[Code] = set()
        self._inside = 0  # of those seen, how many are in the region
        self._rest: list[Code] | None = None
        self._all = codes.size if region is None else region.at_most

    def __contains__(self, code: Code) -> bool:
        """Returns true if ``code`` was not seen, and may be."""
        return code not in self._seen and (self._region is None or code in self._region)

    def may_have(self, code: Code) -> bool:
        """Returns the same, without a measurement: true also for what only a measurement could exclude."""
        return code not in self._seen and (self._region is None or self._region.may_have(code))

    def __bool__(self) -> bool:
        """Returns true while anything may not have been seen."""
        return self._inside < self._all and self._rest != []

    def see(self, code: Code) -> None:
        """From now on ``code`` is not drawn."""
        if code not in self._seen:
            self._seen.add(code)
            self._inside += self._region is None or self._region.may_have(code)

    def any(self, rng: np.random.Generator) -> Code:
        """Returns a code that may be tried, seen or not, each equally likely."""
        return self._codes.sample(rng) if self._region is None else self._region.draw(rng)

    def draw(self, rng: np.random.Generator) -> Code | None:
        """Returns an unseen code, each equally likely, which is seen from now on; None when all were seen."""
        if not self:
            return None
        # while most are unseen a few tries find one; after that a list costs no more than what was seen
        code = self._reject(rng) if self._rest is None and 2 * self._inside < self._all else None
        if code is None:
            code = self._take(rng)
        if code is not None:
            self.see(code)
        return code

    def _reject(self, rng: np.random.Generator) -> Code | None:
        if self._region is None:
            while (code := self._codes.sample(rng)) in self._seen:
                pass
            return code
        for _ in range(_TRIES):
            if (code := self._region.draw(rng)) not in self._seen:
                return code
        return None

    def _take(self, rng: np.random.Generator) -> Code | None:
        if self._rest is None:
            self._rest = self._listed()
        while self._rest:
            place = int(rng.integers(len(self._rest)))
            self._rest[place], code = self._rest[-1], self._rest[place]
            self._rest.pop()
            if code not in self._seen:  # it may have been seen elsewhere since the list was made
                return code
        return None

    def _listed(self) -> list[Code]:
        if self._region is None:
            return [code for code in self._codes.all() if code not in self._seen]
        if self._all > _LISTED:
            raise NoResultError(
                f"{_TRIES} draws within the constraints were all tried before",
                hint="widen the bounds, or end the study",
            )
        return [code for code in self._region.all() if code not in self._seen]
