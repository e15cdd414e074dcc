"""Gates: do architectures in files keep within limits of what they cost in a model?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nnas_core.errors import UsageError
from nnas_core.files import finite_only
from nnas_core.space.goals import nothing_reports
from nnas_core.space.region import shown
from nnas_core.space.search_space import SearchSpace
from nnas_core.workflows.model_costs import ModelCosts
from nnas_core.workflows.settings import CountSettings
from nnas_core.workflows.setup import Setup
from nnas_core.workflows.validate import FileCheck

__all__ = ["Gates"]

_KINDS = ("architecture", "architecture-document", "parameters")


class Gates:
    """Limits of what architectures cost in a model.

    Args:
        settings: the model, its data, and the limits.

    Attributes:
        space: of the model.

    Raises:
        UsageError: a limit is about a number that is not known before an architecture is trained.
    """

    def __init__(self, settings: CountSettings) -> None:
        self._limits = settings.goals.constraints
        setup = Setup(settings.setup)
        setup.to_device(setup.model)
        self.space: SearchSpace = setup.space
        self._costs = ModelCosts(setup, settings.goals.names, settings.goals.latency_table)
        for one in self._limits:
            if one.name not in self._costs.names:
                raise nothing_reports("constraint", one.name, self._costs.available)

    def check(self, files: Sequence[FileCheck]) -> list[FileCheck]:
        """Returns what was found about files, with what their architectures cost, and the limits that these break.

        Raises:
            UsageError: all files are valid, and no architectures: a gate that checks nothing must not let them pass.
        """
        checked = [self._check(found) for found in files]
        if self._limits and not any(found.problems or found.kind in _KINDS for found in checked):
            kinds = ", ".join(sorted({found.kind for found in checked}))
            raise UsageError(
                f"there is no architecture in the files ({kinds}), so nothing is checked against the limits",
                hint="give files of architectures, as `nnas search -o run` writes run/architecture.json",
            )
        return checked

    def _check(self, found: FileCheck) -> FileCheck:
        if found.problems or found.kind not in _KINDS:
            return found
        architecture = self.space.parse(found.document, found.file)
        if not architecture.is_hard:
            return replace(found, problems=["has weights instead of decisions, and so no costs"])
        cost = finite_only(self._costs.of(architecture))
        problems = [
            f"{one}: it has {shown(cost[one.name]) if one.name in cost else 'a cost that could not be measured'}"
            for one in self._limits
            if not one.holds(cost.get(one.name, float("nan")))
        ]
        return replace(found, problems=problems, cost=cost)
