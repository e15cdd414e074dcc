"""A tuner of one's own: climb from a random architecture, one changed decision at a time.

    nnas tune examples/digits/model.py --checkpoint runs/digits/checkpoint.pt \\
        --tuner examples/custom_tuner/tuner.py:HillClimber --trials 50 -o best.json
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnas_core import Architecture, NoMoreTrials, SearchSpace, Tuner


class HillClimber(Tuner):
    """Try one change at every key; where one helps, go on from there; where none does, start somewhere else.

    Args:
        seed: all randomness comes from it, so that a resumed study goes on as it would have.
        optimize_mode: ``"maximize"`` or ``"minimize"``.
        restarts: how often to start somewhere else before giving up; ``--tuner-arg restarts=0`` climbs once.
    """

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize", restarts: int = 1000) -> None:
        super().__init__(seed, optimize_mode)
        self._rng = np.random.default_rng(seed)
        self._starts_left = 1 + restarts
        self._queue: list[Architecture] = []
        self._proposed: set[Architecture] = set()
        self._top: float | None = None

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Called once, before anything else."""
        self._space = SearchSpace.from_json(search_space)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """The architecture of the next trial, as parameters JSON; an architecture is never proposed twice."""
        if not self._queue:
            self._queue.append(self._start())
            self._top = None
        architecture = self._queue.pop()
        self._proposed.add(architecture)
        return architecture.parameters()

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any) -> None:
        """A trial succeeded: climb if it is the best since the last start."""
        height = value if self.optimize_mode == "maximize" else -value
        if self._top is None or height > self._top:
            self._top = height
            steps = self._steps_from(self._space.parse(parameters))
            self._queue = [step for step in steps if step not in self._proposed]

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """A trial ended, well or not. A failed one is simply not climbed."""

    def _start(self) -> Architecture:
        if self._starts_left == 0 or len(self._proposed) == self._space.size:
            raise NoMoreTrials
        self._starts_left -= 1
        while (architecture := self._space.sample(self._rng)) in self._proposed:
            pass  # ends, because not everything is proposed
        return architecture

    def _steps_from(self, architecture: Architecture) -> list[Architecture]:
        """One random change at every key that has something to choose from, in random order."""
        decisions = architecture.indices()
        steps = [
            architecture.replace(choice.key, choice.sample_other(self._rng, decisions[choice.key]))
            for choice in self._space
            if choice.size > 1
        ]
        return [steps[index] for index in self._rng.permutation(len(steps))]
